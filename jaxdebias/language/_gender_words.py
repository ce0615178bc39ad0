"""A list of gendered words and their counterparts, and sentences with every one of them exchanged."""

import re

_LIST = """
he/she himself/herself man/woman men/women boy/girl boys/girls male/female males/females guy/gal guys/gals
father/mother fathers/mothers dad/mom dads/moms daddy/mommy papa/mama son/daughter sons/daughters brother/sister
brothers/sisters husband/wife husbands/wives uncle/aunt uncles/aunts nephew/niece nephews/nieces
grandfather/grandmother grandfathers/grandmothers grandpa/grandma grandson/granddaughter grandsons/granddaughters
stepfather/stepmother stepson/stepdaughter stepbrother/stepsister godfather/godmother boyfriend/girlfriend
boyfriends/girlfriends groom/bride grooms/brides widower/widow widowers/widows bachelor/bachelorette
gentleman/lady gentlemen/ladies sir/madam mr/mrs king/queen kings/queens prince/princess princes/princesses
duke/duchess dukes/duchesses emperor/empress baron/baroness lord/dame god/goddess gods/goddesses wizard/witch
wizards/witches monk/nun monks/nuns priest/priestess actor/actress actors/actresses waiter/waitress
waiters/waitresses host/hostess hosts/hostesses heir/heiress heirs/heiresses steward/stewardess
stewards/stewardesses hero/heroine heroes/heroines schoolboy/schoolgirl schoolboys/schoolgirls
businessman/businesswoman businessmen/businesswomen policeman/policewoman policemen/policewomen
fireman/firewoman firemen/firewomen salesman/saleswoman salesmen/saleswomen spokesman/spokeswoman
spokesmen/spokeswomen chairman/chairwoman chairmen/chairwomen congressman/congresswoman
congressmen/congresswomen cowboy/cowgirl cowboys/cowgirls landlord/landlady landlords/landladies
fraternity/sorority fatherhood/motherhood paternal/maternal masculine/feminine manhood/womanhood
boyhood/girlhood brotherhood/sisterhood
"""
PAIRS = tuple(tuple(pair.split("/")) for pair in _LIST.split())
"""(male, female), lower case. `him`, `his`, `her` and `hers` are not one to one: see `swap_gender`."""

_OTHER = dict(PAIRS) | {female: male for male, female in PAIRS} | {"ms": "mr", "hers": "his", "him": "her"}
_GENDERED = frozenset(_OTHER) | {"his", "her"}
# Behind these, "her" is nobody's: "told her that", "saw her in", against "her car", "her old car".
_FUNCTION_WORDS = """
a about after again although an and any are around as at away back because before but by could did do does down during
every for from had has have how if in into is it like may might more no not nothing of off on once or out over she he
shall should since so some something soon than that the then there these they this those though through to
today together tomorrow too toward towards under until up upon very was we well were what when where whether which while
who whom why will with without would yesterday you
"""
_ENDS = frozenset(_FUNCTION_WORDS.split())


def swap_gender(text: str) -> str:
    """Exchanges every gendered word of the list for its counterpart; capitals stay where they are.

    "her" stands for "him" and for "his". It becomes "his" before a word that can belong to somebody, else "him"; in
    the same way "his" becomes "her" or "hers". The rule looks at the next word only and can be wrong ("gave her
    books"); names stay as they are.

    >>> swap_gender("The waitress said that she had lost her keys; nobody helped her.")
    'The waiter said that he had lost his keys; nobody helped him.'
    """

    def other(found: re.Match) -> str:
        word = found[0].lower()
        if word in ("his", "her"):
            following = re.match(r"\s+([A-Za-z]+)", text[found.end() :])
            owned = following is not None and following[1].lower() not in _ENDS
            new = {"his": "her" if owned else "hers", "her": "his" if owned else "him"}[word]
        else:
            new = _OTHER.get(word, word)
        return _with_case_of(found[0], new)

    return re.sub(r"[A-Za-z]+", other, text)


def gendered_words(text: str) -> list[str]:
    """The words of a text that `swap_gender` would exchange, lower case, in their order.

    >>> gendered_words("His sister met a doctor.")
    ['his', 'sister']
    """
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in _GENDERED]


def _with_case_of(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
