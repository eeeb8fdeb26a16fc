"""What a news text is about, by whole words and phrases.

The table says which phrases speak of which kind of news.  Where several phrases begin at one place the longest counts,
and what is inside it does not count again: so "approval" speaks of regulation, but "approval rating" of nothing, and
"earnings forecast" of guidance alone.  Words are compared in lower case, anything but letters and digits separates
them, and every digit stands for all: "Q3 results" is a phrase for Q1 to Q4, "sees 2024" for any year.

`news_category` gives one of five categories, the first of CATEGORIES that the text speaks of.  So a report of results
that also changes a forecast is earnings, and a takeover that a regulator looks into is M&A: the later ones often come
up as the consequence of the earlier.  Words that are in news of any kind ("revenue", "deal", "quarterly") count within
phrases only, since a forecast of revenue is no report, and a trade deal no takeover.
"""

import string

import ahocorasick_rs

__all__ = ["CATEGORIES", "GENERAL", "KINDS", "category_of_kinds", "news_category", "news_kinds"]

CATEGORIES = ("earnings", "ma", "regulatory", "guidance")
"""The categories beside GENERAL, first the one that takes precedence."""

GENERAL = "general"
"""The category of a text that speaks of none of CATEGORIES."""

_NOTHING = ""
_PHRASES = {
    "earnings": """
        earnings, eps, ebitda, ebit, gaap profit, gaap loss, gaap net, net profit, net income, net loss,
        net earnings, operating profit, operating income, operating loss, pretax profit, pre tax profit,
        profit after tax, quarterly profit, quarterly loss, quarterly results, quarterly revenue,
        quarterly sales, quarterly report, quarter profit, quarter loss, quarter results, quarter revenue,
        quarter sales, quarter net, q1 profit, q1 loss, q1 results, q1 revenue, q1 sales, q1 net, q1 deliveries,
        annual results, full year results, full year profit rises, full year profit falls, half year results,
        half year profit, first half profit, first half results, interim results, preliminary results,
        nine month sales, nine month profit, nine months results, six month profit, results top, results beat,
        results miss, results exceed, beats estimates, beat estimates, tops estimates, top estimates,
        misses estimates, miss estimates, tops expectations, beats expectations, misses expectations,
        beat forecasts, beats forecasts, tops forecasts, misses forecasts, profit estimates, revenue estimates,
        profit beats, profit misses, revenue beats, revenue misses, sales beat, sales miss, misses on, beats on,
        top and bottom line, top line, profit rises, profit falls, profit jumps, profit drops, profit climbs,
        profit surges, profit slumps, profit plunges, profit doubles, profit triples, profit up, profit down,
        profit rose, profit fell, record profit, revenue rises, revenue falls, revenue jumps, revenue drops,
        revenue climbs, revenue surges, revenue grows, revenue up, revenue down, revenue rose, revenue fell,
        same store sales, comparable sales, like for like sales, organic sales, swings to loss, swings to profit,
        swings to a loss, swings to a profit, surprise loss, surprise profit, wider loss, narrower loss,
        narrows loss, posts loss, posts profit, earnings call, earnings season, financial results,
        results for the first quarter, results for the quarter, q1 beat, q1 miss, q1 earnings, q1 eps,
        sales rose, sales fell, sales rise, sales fall, sales jump, sales drop, sales climb, sales surge,
        sales up, sales down, sales growth slows, q1 ebitda, ffo, beats on revenue, beats by, misses by,
        trading update, trading statement""",
    "ma": """
        acquire, acquires, acquired, acquiring, acquisition, acquisitions, acquirer, merger, mergers, merge with,
        merges with, to merge, merging with, takeover, takeovers, take over bid, buyout, buyouts, tender offer,
        hostile bid, bid for, bids for, offer for, agrees to buy, agreed to buy, agree to buy, agrees to sell,
        agreed to sell, agreement to buy, deal to buy, deal to sell, deal for, deal talks, all stock deal,
        all cash deal, stock deal, cash deal, billion deal, million deal, billion bid, snaps up, buys stake,
        buys a stake, sells stake, sells its stake, takes stake, stake sale, stake in, majority stake,
        minority stake, controlling stake, to buy stake, to sell stake, sale of unit, sells unit, sell unit,
        explores sale, exploring sale, weighs sale, considers sale, potential sale of, sale of its, spin off,
        spins off, spinoff, spun off, divest, divests, divestiture, divestitures, takes private, take private,
        taken private, go private, going private, strategic alternatives, to be bought by, business combination,
        reverse merger, carve out, bn deal, mln deal, m deal, billion acquisition, billion takeover,
        billion merger, agreed deal, megadeal, merger agreement""",
    "regulatory": """
        fda, ema, european medicines agency, approval, approvals, eu backing, regulatory nod, eu nod,
        eu clearance, regulator, regulators, regulatory, watchdog, antitrust, competition authority,
        european commission, ftc, federal trade commission, doj, justice department, department of justice, fcc,
        faa, nhtsa, epa, cftc, cfpb, finra, fca, bafin, the sec, sec charges, sec sues, sec probe, sec probes,
        sec investigation, sec opens, sec investigates, sec fines, sec approves, sec rejects, sec rule,
        sec rules, sec chair, sec subpoena, by the sec, securities and exchange commission, eu fines, fines,
        fined, eu regulators, eu probe, probe into, opens probe, launches probe, opens investigation,
        launches investigation, under investigation, drug, drugs, vaccine, vaccines, emergency use authorization,
        fast track designation, breakthrough therapy, orphan drug, priority review, complete response letter,
        new drug application, advisory committee, primary endpoint, clinical trial, clinical trials,
        late stage trial, late stage study, mid stage trial, phase 1, phase 2, phase 3 trial, phase 3 study,
        clinical hold, pdufa, data protection authority, phase 3 data, clinical development,
        marketing authorization, trial results""",
    "guidance": """
        guidance, outlook, forecast, forecasts, earnings forecast, earnings outlook, earnings guidance,
        profit forecast, profit warning, warns on profit, guides, guided, sees 2024, sees fy, sees fy24,
        sees full year, sees annual, sees q1, sees first quarter, sees second quarter, sees third quarter,
        sees fourth quarter, expects annual, expects full year, expects fy24, expects 2024, expects q1,
        projects annual, margin target, profit target, sales target, revenue target, earnings target, eps view,
        revenue view, reaffirms fy24, raises fy24, cuts fy24, lowers fy24, full year eps, annual eps, fy eps,
        fy24 eps, sees eps""",
    "dividends": """
        dividend, dividends, ex dividend, payout to shareholders, shareholder payout, shareholder payouts,
        cash distribution, monthly distribution, quarterly distribution""",
    "buyback": """
        buyback, buybacks, buy back, buys back, buying back, share repurchase, share repurchases,
        stock repurchase, stock repurchases, repurchase program, repurchase programme, repurchase plan,
        repurchase authorization""",
    "analyst": """
        upgrade, upgrades, upgraded, downgrade, downgrades, downgraded, price target, price targets,
        initiates coverage, initiated coverage, resumes coverage, initiated at, initiated with, overweight,
        underweight, outperform, underperform, market perform, sector perform, equal weight, buy rating,
        sell rating, hold rating, rated buy, neutral rating, cut to neutral, cuts to neutral, cut to sell,
        cuts to sell, cut to hold, cuts to hold, raised to buy, raises to buy, cut to buy, started at buy, pt 5,
        pt 50, pt 500, resumes at, resumed at, started with, price objective, double upgrade, reiterates buy,
        initiates with""",
    "legal": """
        lawsuit, lawsuits, sue, sues, sued, suing, class action, suit against, files suit, court, courts, judge,
        judges, jury, verdict, settlement, settlements, to settle, settles, settled with, litigation, plaintiff,
        plaintiffs, injunction, patent infringement, patent case, arbitration, legal action, charged with,
        convicted, indicted, indictment, pleads guilty, pleaded guilty, found guilty, sentenced, fraud charges,
        fraud trial, on trial""",
    "product": """
        launches, launched, to launch, launch of, product launch, unveils, unveiled, introduces, introduced,
        rolls out, rolled out, to release, releases new, debuts, new version, new model, new models, recall,
        recalls, recalled, recalling""",
    "macro": """
        fed, federal reserve, fomc, powell, ecb, lagarde, european central bank, bank of england, boe,
        bank of japan, boj, central bank, central banks, central banker, inflation, cpi, ppi, pce, gdp, payrolls,
        jobs report, jobless, unemployment, interest rate, interest rates, rate cut, rate cuts, rate hike,
        rate hikes, rate increase, treasury yield, treasury yields, treasuries, bond yields, tariff, tariffs,
        opec, trade deal, trade war, trade deficit, trade talks, recession, retail sales, consumer prices,
        consumer price, producer prices, consumer confidence, consumer sentiment, consumer spending,
        housing starts, home sales, pmi, economic growth, industrial production, durable goods,
        government shutdown, debt ceiling, pboc, reserve bank, riksbank, snb, factory orders, business optimism,
        economic data, manufacturing activity, pce inflation, fiscal stimulus, bond purchases,
        quantitative easing, federal open market committee""",
    _NOTHING: """
        approval rating, approval ratings, job approval, shareholder approval, board approval,
        shareholders approval, customer acquisition, user acquisition, talent acquisition, data acquisition,
        acquired taste, worker buyouts, employee buyouts, great deal for, good deal for, weather forecast,
        weather forecasts, economic outlook, outlook stable, outlook negative, outlook positive, drug store,
        drug stores, drug lord, drug cartel, drug cartels, drug dealer, software upgrade, system upgrade,
        software upgrades, network upgrade, upgrades probe, fed up, total recall, tennis court, food court,
        court of public opinion, settlement date, settlement price, settlement prices, drug delivery,
        inflation outlook, growth outlook, rate outlook, to settle at""",
}

KINDS = tuple(sorted(_PHRASES.keys() - {_NOTHING}))
"""What `news_kinds` tells apart."""

_ALNUM = string.ascii_lowercase + string.digits
_FOLDED = bytes(
    ord("0") if 48 <= byte < 58 else byte if chr(byte) in _ALNUM or byte >= 0xC0 else 32 for byte in range(256)
)


def _folded(text: str) -> bytes:
    """Words in lower case with a space on either side of each, digits as zeros.

    In Latin-1, which has the letters of the table and tells other letters from signs as far as it matters here.
    """
    words = text.lower().encode("latin-1", "replace").translate(_FOLDED).split()
    return b" " + b"  ".join(words) + b" "


_KIND_OF = {
    _folded(phrase): kind for kind, phrases in _PHRASES.items() for phrase in phrases.split(",")
}  # in the order of the automaton's indexes
_KIND_AT = tuple(_KIND_OF.values())
_AUTOMATON = ahocorasick_rs.BytesAhoCorasick(_KIND_OF, ahocorasick_rs.MatchKind.LeftmostLongest)


def news_kinds(text: str) -> tuple[str, ...]:
    """The KINDS that `text` speaks of, sorted; none, one or several.  Linear in the length of `text`."""
    found = {index for index, _, _ in _AUTOMATON.find_matches_as_indexes(_folded(text))}
    return tuple(sorted({_KIND_AT[index] for index in found} - {_NOTHING}))


def news_category(text: str) -> str:
    """The first of CATEGORIES that `text` speaks of, else GENERAL."""
    return category_of_kinds(news_kinds(text))


def category_of_kinds(kinds: tuple[str, ...]) -> str:
    """`news_category` of a text, given its `news_kinds`."""
    return next((category for category in CATEGORIES if category in kinds), GENERAL)
