"""What deployments need; the local stack reads the alert rules from here, so that there is one copy of them."""
