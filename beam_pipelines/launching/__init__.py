"""Launches in the manner of Dataflow's flex templates, on any runner."""
