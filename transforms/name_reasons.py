"""Reasons to take a word that is a name, too, for a company's: what stands around it in its line.

Looks at no more than `SIGHT` characters on either side: the cost of a name does not depend on the text's length.
"""

import re
from functools import cached_property

__all__ = ["SIGHT", "Around", "has_capital_reason", "has_reason", "is_denied", "is_surname", "moves"]

SIGHT = 64
"""Characters on either side of a name that can be a reason."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019&][^\W_]+)*")
_NEXT = re.compile(r"(?:['\u2019]s?)?[ \u00a0]+[\"\u201c\u2018]?([^\W_]+(?:['\u2019&][^\W_]+)*)")
_LEGAL_FORM = re.compile(
    r",? (?:Inc|INC|Incorporated|Corp|CORP|Corporation|CORPORATION|Co\b(?!-)|Company|COMPANY|Ltd|LTD|Limited|LLC"
    r"|plc|PLC|Plc|N\.?V|S\.A|SA|SE|AG|Holdings|HOLDINGS|Group|GROUP)\b"
)
_PART = re.compile(r"-(?!(?:owned|backed|led|made|funded|controlled)\b)")
_SPACE = re.compile(r"\s")
_SIGNS = re.compile(r"[%$€£¥]")
_OPENINGS = " \t\u00a0\"\u201c\u2018'("


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words("vs Mr Mrs Ms Dr St Inc Corp Co Ltd Gov Sen Rep Gen Prof")
_TITLES = _words("Mr Mrs Ms Dr St Gov Sen Rep Gen Prof President Senator Judge Mayor Professor")
_DETERMINERS = _words("the a an this that these those his her our my your their its every each no any another some")
_CLAUSES = _words("and or but as while after before when if why how whether because so says say said with for vs")
_PLACES = _words(
    "rainforest basin river jungle county city university college museum park street island islands forest valley"
    " state town bridge hospital school church festival foundation library theatre theater"
)
_MONEY = _words(
    "profit profits sales earnings revenue revenues estimate estimates forecast forecasts outlook guidance share"
    " shares stock stocks dividend dividends quarter quarterly investor investors analyst analysts price prices deal"
    " stake ceo jobs layoffs debt bonds bondholders billion million results market merger q1 q2 q3 q4"
)
_MAKERS = _words(
    "maker makers chipmaker carmaker automaker drugmaker planemaker phonemaker retailer retailers airline airlines"
    " owner parent bank lender giant giants rival rivals insurer brewer brewery brokerage startup company firm"
    " operator conglomerate miner refiner utility broker supplier suppliers sues sued fines fined acquires acquire"
    " acquired buys upgrades upgraded downgrades downgraded overtakes overtook passes"
)
_HOLDERS = _words(
    "target targets shares stock stake stakes ceo cfo chief owner maker unit subsidiary acquisition takeover buyout"
    " merger invest invests invested investment position executive chairman founder deal talks partnership investors"
    " shareholders parent bid price rating coverage bullish bearish valuation"
)
_OF = _words("of in at for with by on from")
_BUSINESS = _words(
    "shares share stock stocks ceo cfo coo cto chief executive executives earnings revenue revenues sales profit"
    " profits results q1 q2 q3 q4 quarterly guidance dividend dividends buyback investors shareholders stockholders"
    " holders analyst analysts outlook forecast chairman board subsidiary bonds bondholders ipo merger acquisition"
    " layoffs deliveries bookings backlog market supplier suppliers inc corp"
)
_TELLING = _words(
    "recalls recalled acquires acquired unveils unveiled posts posted beats misses missed tops topped slashes"
    " slashed swings swung forecasts launches launched reports reported trims trimmed ousts ousted appoints"
    " appointed sues sued expects invests rallies soars soared tumbles tumbled plunges plunged slumps slumped"
)
_DOES = _words(
    "lays laid cancels cancelled canceled raises raised lifts lifted hikes hiked cuts names named hires hired buys"
    " sells agrees agreed partners signs signed files filed settles settled plans warns warned suspends suspended"
    " denies denied announces announced declares issues declared introduces debuts confirms confirmed expands opens"
    " halts halted resumes acknowledges discloses teams stumbles stumbled adds added seeks explores weighs considers"
    " completes spins delayed overtakes overtook"
    " rolls rolled reveals revealed paused scraps scrapped sheds shelves shelved tapped pulls pulled inks inked revamps"
    " revamped poaches poached ditches axes axed nears touts touted pledges pledged vows vowed defends blames blamed"
    " apologizes backs backed banned boosted chooses chose combines creates develops enters entered exited extends"
    " extended fights fought fired landed licensed lowers lowered merges merged offered plots prepares promotes"
    " promoted proposes proposed pursues quits reaffirms rebrands reduces reduced rejects rejected relaunches renames"
    " reorganizes replaces replaced restructures restates secures secured shutters shuttered shuts stopped struck"
    " submits tested tweaks upgraded withdraws withdrew"
)
_MOVES = _words(
    "rises rise rose falls fall fell gains gain gained slips slip slipped slides slide slid sinks sink sank surges"
    " surge surged jumps jump jumped drops drop dropped climbs climb climbed edges dips dip hits hit wins won loses"
    " lost closes closed faces faced sees saw says said pays paid receives gets got holds ends ended delays delayed"
    " reaches reached leads led tells told joins joined leaves takes took makes made sold bought is was has will"
    " rally tumble plunge soar beat"
)
_TO = _words(
    "acquire buy sell cut lay invest raise launch open close hike pay spin build report post split offer exit join"
    " move expand hire appoint name face lose settle add stop end recall merge list delay suspend boost replace"
    " unveil go take make start shut slash spend release host supply use begin bring cease pull drop test trial"
)


class Around:
    """What stands around `text[begin:end]` in its line."""

    def __init__(self, text: str, begin: int, end: int) -> None:
        self._left = text[max(0, begin - SIGHT) : begin].rpartition("\n")[2]
        self._right = text[end : end + SIGHT].partition("\n")[0]
        self._stripped = self._left.rstrip(_OPENINGS)

    @cached_property
    def before(self) -> list[str]:
        """Up to two words right before the name, the nearer first."""
        if self.starts or self._stripped[-1] in ",/&%)":
            return []
        return _WORD.findall(self._stripped[-32:])[:-3:-1]

    @cached_property
    def after(self) -> list[str]:
        """Up to two words right behind the name or its possessive."""
        first = _NEXT.match(self._right)
        second = first and _NEXT.match(self._right, first.end())
        return [found[1] for found in (first, second) if found]

    @cached_property
    def starts(self) -> bool:
        """Whether it starts a sentence: its capital says nothing."""
        if not self._stripped:
            return True
        last = self._stripped[-1]
        if last == ".":
            words = _WORD.findall(self._stripped[-8:])
            return not (words and (len(words[-1]) == 1 or words[-1] in _ABBREVIATIONS))  # U.S. and Mr. end none
        return not last.isalnum() and last not in ",/&%)'\u2019"

    @cached_property
    def opens(self) -> bool:
        """Whether it opens a sentence or a clause, or it is said whose it is: Buffett's Berkshire."""
        if self.starts or self._stripped[-1] == ",":
            return True
        near = self.before[0] if self.before else ""
        return near.lower() in _CLAUSES or near.endswith(("'s", "\u2019s"))

    @cached_property
    def _long(self) -> list[str]:
        before = _WORD.findall(self._left)[1 if len(self._left) == SIGHT else 0 :]  # the first may be cut
        return [word for word in before[-7:] + _WORD.findall(self._right)[:9] if len(word) > 3]

    @cached_property
    def flat(self) -> bool:
        """Whether all words around it have capitals, so that none says anything."""
        return not any(word[0].islower() for word in self._long)

    @cached_property
    def shouted(self) -> bool:
        """Whether all words around it are in capitals throughout."""
        return bool(self._long) and all(map(str.isupper, self._long))

    @cached_property
    def legal(self) -> bool:
        """Whether a company's legal form follows."""
        return bool(_LEGAL_FORM.match(self._right))

    @property
    def is_part(self) -> bool:
        """Whether it is one of the words of a compound: Target-date funds."""
        return self._left.endswith("-") or bool(_PART.match(self._right))

    @property
    def is_behind_name(self) -> bool:
        """Whether a word with a capital stands right before."""
        return bool(self.before) and not self.before[0][0].islower()

    @property
    def is_whole(self) -> bool:
        """Whether no word with a capital follows, where that says something."""
        return not (self.after and self.after[0][0].isupper()) or self.flat

    @cached_property
    def owns(self) -> bool:
        """Whether it is a possessive."""
        return self._right.startswith(("'s ", "\u2019s "))

    @cached_property
    def money(self) -> bool:
        """Whether the rest of the line is about money."""
        return bool(_SIGNS.search(self._right)) or not _MONEY.isdisjoint(_WORD.findall(self._right.lower()))


def is_denied(at: Around) -> bool:
    """Whether a word is no company's name, whatever else is said: after an article or a title, or part of another."""
    if at.is_part:
        return True
    if at.before and (at.before[0].lower() in _DETERMINERS or at.before[0] in _TITLES):
        return True
    return bool(at.after) and at.after[0].lower() in _PLACES


def is_surname(text: str, begin: int, people: frozenset[str]) -> bool:
    """Whether a first name or a title stands before."""
    if text[begin - 1 : begin] != " ":
        return False
    near = _SPACE.split(text[begin - 16 if begin > 16 else 0 : begin - 1])[-1]
    if near.islower():
        return False
    near = near.lstrip(_OPENINGS)
    return (near.title() if near.isupper() else near) in people or near in _TITLES


def has_reason(at: Around, of_place: bool) -> bool:
    """Whether the words next to a name say that it is a company's.

    Args:
      at: what stands around it.
      of_place: it is the name of a place or a person, too: they also rise, fall and say.
    """
    after = [word.lower() for word in at.after]
    before = [word.lower() for word in at.before]
    if (
        (after and after[0] in _BUSINESS)
        or after == ["price", "target"]
        or (at.legal and not (at.is_behind_name and not at.flat))
    ):
        return True
    if at.is_whole and before and (before[0] in _MAKERS or (before[0] in _OF and before[-1] in _HOLDERS)):
        return True
    if at.owns and not of_place and (at.money or (at.after and at.after[0][0].isupper() and not at.flat)):
        return True
    return bool(after) and _acts(at, after, of_place) and (at.opens or _is_amid(at))


def _acts(at: Around, after: list[str], of_place: bool) -> bool:
    """Whether what follows is a thing that companies do."""
    if after[0] in _TELLING:
        return True
    business = after[0] in _DOES or after == ["in", "talks"] or (after[0] == "to" and after[-1] in _TO)
    return (business and (at.money or not of_place)) or (after[0] in _MOVES and (at.money or len(after) == 1))


def moves(at: Around) -> bool:
    """Whether it does what a company beside another would be told to do: Apple rises while Tesla falls."""
    return at.opens and bool(at.after) and at.after[0].lower() in _MOVES


def has_capital_reason(at: Around) -> bool:
    """Whether the capital alone says that a word is a name: within a sentence, and no part of a longer name."""
    return at.is_whole and _is_amid(at)


def _is_amid(at: Around) -> bool:
    """Within a sentence in small letters, and not behind another name."""
    return not at.starts and not at.is_behind_name and not at.flat
