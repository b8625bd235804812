"""Personal data and secrets in texts: patterns, checksums and context, no model.

A shape alone says little: every ISO time and every float can be a phone number. So what looks
alike is masked first (times, UUIDs, hashes, decimals, money), a card needs an issuer and its
check digit, an IBAN its remainder, and a number without a telling shape a telling word before
it. Names and addresses have no shape: they are not found.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from string import ascii_lowercase
from typing import Final, NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import phonenumbers

from llmobs.measures.text.characters import runs
from llmobs.measures.text.kernels.places import OTHER_LETTER, OTHER_MARK, find_places

__all__ = ["PII_VERSION", "PiiSpan", "pii"]

PII_VERSION: Final = f"1+phonenumbers-{phonenumbers.__version__}"


class PiiSpan(NamedTuple):
    """Personal data or a secret at ``text[start:end]``.

    Attributes:
        kind: ``EMAIL_ADDRESS``, ``PHONE_NUMBER``, ``CREDIT_CARD``, ``IBAN_CODE``, ``US_SSN``,
            ``IP_ADDRESS`` or ``SECRET``.
        confidence: In (0, 1]: 1 with a checksum or a fixed shape, less where context decided.
    """

    start: int
    end: int
    kind: str
    confidence: float


_EMAIL: Final = re.compile(
    r"[A-Za-z0-9](?:[\w.+'-]{0,62}[\w+-])?@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@])"
)
_CARD: Final = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){11,18}(?![\d]|[.-]\d)")
# Prefixes and lengths of Visa, Mastercard, Maestro, Discover and UnionPay (6…), Amex, Diners,
# JCB.
_ISSUER: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|5[06-8]\d{10,17}|6\d{11,18}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|(?:2131|1800)\d{11}"
)
# Not "ignoring case", by which a Kelvin sign would be a K: only ASCII has a value in the remainder.
_IBAN: Final = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}")
# Characters by country, from the IBAN registry of SWIFT.
_IBAN_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL", 29: "BR PS QA UA",
        30: "JO KW MU", 31: "MT SC",
    }.items()
    for country in countries.split()
}  # fmt: skip
# Never issued: area 000, 666 and 900 up, group 00, serial 0000.
_SSN: Final = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}([- ])(?!00)\d\d\1(?!0000)\d{4}(?![\d-])")
_BARE_SSN: Final = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}(?!00)\d\d(?!0000)\d{4}(?![\d-])")
_IP: Final = re.compile(
    r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
    r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}(?::|[0-9a-fA-F]{1,4})(?:[0-9a-fA-F:]*)(?![\w:])"
)
# Fixed prefixes as their issuers document them.
_SECRET: Final = re.compile(
    r"\b(?:sk-(?:proj-|ant-[a-z0-9]+-|or-v1-|svcacct-)?[A-Za-z0-9_-]{20,}"  # model providers
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS access key id
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|xox[abposr]-[A-Za-z0-9-]{10,}"  # Slack
    r"|AIza[\w-]{35}"  # Google
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"  # JSON Web Token
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
_ASSIGNED_SECRET: Final = re.compile(
    r"""(?i)\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|passw(?:or)?d|pwd)\b"""
    r"""["']?\s{0,3}(?:=|:|\bis\b)\s{0,3}["']?(?P<value>(?=[^\s"']*\d)(?=[^\s"']*[A-Za-z])[^\s"',;]{8,128})"""
)

_LOOK_ALIKES: Final = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"  # ISO time
    r"|\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?\b"  # clock
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"  # UUID
    r"|\b(?=[0-9a-fA-F]*[a-fA-F])(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{16,}\b"  # hash
    r"|(?<![\d.])\d+\.\d{4,}\b"  # decimal
    r"|\b\d{1,3}(?:,\d{3})+(?:\.\d+)?\b"  # money
    r"|\bhttps?://[^\s<>\"']+"  # ids in a URL's path are not to be told from numbers of people
    r"|\b[A-Za-z]{2,}[-_#]?\d[\dA-Za-z-]*\b"  # part number, ticket
    r"|(?<![\d-])\d{3}-\d\d-\d{4}(?![\d-])"  # part number, too, unless it was found as an SSN
)
_TELLS_PHONE: Final = re.compile(
    r"(?i)\b(?:tele)?phone|\bcall|\btel\b|\bfax|\bmobile|\bcell|\breach|\btext\b|\bcontact|\bdial"
    r"|whatsapp|\bnumber(?: is|:)|\bhotline|\bring\b|\bsms\b|\banswering at\b"
)
_TELLS_PHONE_AFTER: Final = re.compile(r"(?i)[ -]?\(?(?:office|fax|home|mobile|cell|work|phone)\b")
_TELLS_SSN: Final = re.compile(r"(?i)\bssn\b|\bsocial\b|\bsecurity\b|\btax(?:payer)?\b|\bitin\b")
_TELLS_OTHER_ID: Final = re.compile(
    r"(?i)\b(?:order|invoice|ticket|tracking|reference|ref|serial|case|job|item|part|article|isbn|"
    r"version|build|commit|(?:customer|account|user|request) id)\b[^.\n]{0,20}$"
)
_PHONE_SHAPE: Final = re.compile(r"^\+|^\(\d{2,5}\) ?\d|\d{2,4}[ .-]\d{2,4}[ .-]\d{3,}|\d ?x\d+$")
# Of countries that the matcher does not know the region of; needs a telling word.
_LOCAL_NUMBER: Final = re.compile(r"(?<![\w./-])\d{2,4}(?:[ -]\d{2,8}){1,4}(?![\w/]|\.\d)")
_CONTEXT_CHARS: Final = 60
_MIN_PHONE_DIGITS: Final = 8
_MIN_LOCAL_DIGITS: Final = 6

# Each kind asks first for the least that it needs. What these match has nothing around it that
# counts, so blanking a part of a text never makes a match.
_IPV6_LIKE: Final = re.compile(r":[0-9a-fA-F]{1,4}:")
_IPV4_LIKE: Final = re.compile(r"\d\.\d{1,3}\.\d")
_NINE_DIGITS: Final = re.compile(r"\d(?:[ -]?\d){8}")
_TWELVE_DIGITS: Final = re.compile(r"\d(?:[ -]?\d){11}")
_EIGHT_APART: Final = re.compile(r"\d(?:[\Wx]{0,9}\d){7}")
_EXTENSION: Final = re.compile(
    r"(?i)\d\W{0,9}(?:\w?[x\uff58]\w{0,8}\W?n?|anexo|int|\uff49\uff4e\uff54|доб)\W{0,9}\d"
)
_LIKE_PHONE_SHAPE: Final = re.compile(
    r"\+(?:[\Wx]{0,9}\d){8}|\(\d{2,5}\) ?\d|\d{2,4}[ .-]\d{2,4}[ .-]\d{3}|\d ?x\d"
)
_LABELS: Final = ("x", "\uff58", "int", "\uff49\uff4e\uff54", "доб")  # one in every `_EXTENSION`
_AFTER_PLUS: Final = re.compile(r"\+\W{0,9}\d")
_SECRET_MARKS: Final = (
    "sk-", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
    "AIza", "k_live_", "k_test_", "hf_", "npm_", "pypi-", "SG.", "eyJ",
)  # fmt: skip
_SECRET_WORDS: Final = ("key", "secret", "token", "passw", "pwd")
_PHONE_WORDS: Final = (  # every match of the two patterns that tell a phone holds one
    "phone", "call", "tel", "fax", "mobile", "cell", "reach", "text", "contact", "dial",
    "whatsapp", "number is", "number:", "hotline", "ring", "sms", "answering at", "office",
    "home", "work",
)  # fmt: skip
# Of a longer text the first and the last half of that many characters are read: what takes
# half a second of one text must not take a minute of the next.
_MAX_CHARS: Final = 131_072

# What a pattern looks at around a place: context before it, and what comes before or behind the
# digits of a number.
_BEFORE: Final = _CONTEXT_CHARS + 16
_BEHIND: Final = 16
# No match reaches over such a space: the only one with a space that is not at a place is a time
# behind its date.
_EDGE: Final = re.compile(r"(?<!\d)\s")


@cache
def _folds() -> npt.NDArray[np.uint8]:
    """Say what each character is read as by `find_places`; by the patterns' own classes."""
    chars = "".join(map(chr, range(0x20000)))
    folds = np.full(len(chars), OTHER_MARK, np.uint8)
    for pattern, char in ((r"\w+", chr(OTHER_LETTER)), (r"\d+", "0"), (r"\s+", " ")):
        for match in re.finditer(pattern, chars):
            folds[match.start() : match.end()] = ord(char)
    # Some letters beyond ASCII are cases of one in it.
    for match in re.finditer("(?i)[a-z]", chars):
        folds[match.start()] = next(
            ord(char) for char in ascii_lowercase if re.match(char, match[0], re.IGNORECASE)
        )
    for label in ("ｘＸ", "ｉＩ", "ｎＮ", "ｔＴ", "дД"):  # of `_EXTENSION`
        folds[list(map(ord, label))] = ord({"д": "x"}.get(label[0]) or normalize("NFKC", label[0]))
    for code in range(0x80):
        if not chr(code).isspace() and not chr(code).isalnum():
            folds[code] = code
    return folds


def _holds_any(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)


def _may_hold_number(text: str) -> bool:
    """Tell whether there may be a card's or a phone's number in a text."""
    if _TWELVE_DIGITS.search(text) or _may_hold_phone(text):
        return True
    return bool(_LOCAL_NUMBER.search(text)) and _may_tell_phone(text)


def _may_assign_secret(text: str) -> bool:
    return _holds_any(text.casefold(), _SECRET_WORDS)


def _may_hold_phone(text: str) -> bool:
    has_label = _holds_any(text.casefold(), _LABELS)
    has_extension = has_label and bool(_EXTENSION.search(text))
    if not (has_extension or _EIGHT_APART.search(text)):
        return False
    if _LIKE_PHONE_SHAPE.search(text) or (has_extension and _AFTER_PLUS.search(text)):
        return True
    return _may_tell_phone(text)


def _may_tell_phone(text: str) -> bool:
    if not _holds_any(text.casefold(), _PHONE_WORDS):
        return False
    return bool(_TELLS_PHONE.search(text) or _TELLS_PHONE_AFTER.search(text))


def pii(texts: Sequence[str]) -> list[list[PiiSpan]]:
    """Find personal data and secrets in each text.

    Returns:
        One list a text, in order of `PiiSpan.start`; spans don't overlap. Offsets are into the
        text as given. Of a text longer than 131,072 characters the first and the last half of
        that many are read.
    """
    found: list[list[PiiSpan]] = [[] for _ in texts]
    parts = list(_parts(texts))
    first = 0
    for run in runs([part.text for part in parts]):
        places = find_places(run.codes, run.ends, _folds()).tolist()
        for number, group in groupby(places, itemgetter(0)):
            row, text, shift = parts[first + number]
            for start, end in _pieces(text, sorted(place[1:] for place in group)):
                ahead = shift + start
                found[row] += [
                    span._replace(start=span.start + ahead, end=span.end + ahead)
                    for span in find(text[start:end])
                ]
        first += len(run.ends)
    return found


class _Part(NamedTuple):
    """What is read of a text: all, or one of its ends, and where that starts."""

    row: int
    text: str
    start: int


def _parts(texts: Sequence[str]) -> Iterator[_Part]:
    half = _MAX_CHARS // 2
    for row, text in enumerate(texts):
        if len(text) <= _MAX_CHARS:
            yield _Part(row, text, 0)
        else:
            yield _Part(row, text[:half], 0)
            yield _Part(row, text[-half:], len(text) - half)


def _pieces(text: str, places: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Return the parts of a text in which all is found that is found in it.

    Args:
        text: The text.
        places: (start, end) of what may be found, by start; matches may reach to the next space.
    """
    begun = done = 0
    for place, end in places:
        start = max(place - _BEFORE, 0)
        while start > done and not _EDGE.match(text, start - 1):
            start -= 1
        if start > done:
            if done:
                yield begun, done
            begun = start
        edge = _EDGE.search(text, max(end + _BEHIND, done))
        done = edge.start() if edge else len(text)
    yield begun, done


def find(text: str) -> list[PiiSpan]:
    """Ask every pattern about every character: what `pii` does with the parts worth a look."""
    found: list[PiiSpan] = []  # in order, and none overlaps another
    for finder in (_secrets, _emails, _ibans, _social_security_numbers, _ip_addresses):
        _add(found, finder(text))
    if not _may_hold_number(text):
        return found
    # At the same length, so that offsets stay.
    plain = _LOOK_ALIKES.sub(lambda match: "_" * len(match[0]), text)
    _add(found, _cards(plain))
    _add(found, _phones(_blanked(plain, found)))
    return found


def _add(found: list[PiiSpan], more: Iterator[PiiSpan]) -> None:
    for span in more:
        place = bisect_left(found, span)
        is_free = place == len(found) or span.end <= found[place].start
        if is_free and (place == 0 or found[place - 1].end <= span.start):
            found.insert(place, span)


def _secrets(text: str) -> Iterator[PiiSpan]:
    if "PRIVATE KEY" in text or _holds_any(text, _SECRET_MARKS):
        for match in _SECRET.finditer(text):
            yield PiiSpan(*match.span(), "SECRET", 1.0)
    if _may_assign_secret(text):
        for match in _ASSIGNED_SECRET.finditer(text):
            yield PiiSpan(*match.span("value"), "SECRET", 0.6)


def _emails(text: str) -> Iterator[PiiSpan]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield PiiSpan(*match.span(), "EMAIL_ADDRESS", 1.0)


def _cards(text: str) -> Iterator[PiiSpan]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        # One number in ten passes the check digit, so "order 4…" needs the groups of a card.
        other = match[0] == digits and _TELLS_OTHER_ID.search(_before(text, match.start()))
        if _ISSUER.fullmatch(digits) and has_luhn_digit(digits) and not other:
            yield PiiSpan(*match.span(), "CREDIT_CARD", 1.0)


def _ibans(text: str) -> Iterator[PiiSpan]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        # Words may follow that look like further groups; the country says where it ends.
        ends = [i for i, char in enumerate(match[0], 1) if char != " "]
        if 0 < length <= len(ends) and has_iban_remainder(match[0][: ends[length - 1]]):
            yield PiiSpan(match.start(), match.start() + ends[length - 1], "IBAN_CODE", 1.0)


def _social_security_numbers(text: str) -> Iterator[PiiSpan]:
    if not _NINE_DIGITS.search(text):
        return
    for pattern, confidence in ((_SSN, 0.9), (_BARE_SSN, 0.7)):
        for match in pattern.finditer(text):
            if _TELLS_SSN.search(_before(text, match.start())):
                yield PiiSpan(*match.span(), "US_SSN", confidence)


def _ip_addresses(text: str) -> Iterator[PiiSpan]:
    if not (_IPV4_LIKE.search(text) or _IPV6_LIKE.search(text)):
        return
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        # Four small numbers are a version; two letters around "::" may be C++.
        is_version = address.version == 4 and max(address.packed) <= 31
        if not is_version and sum(map(str.isalnum, match[0])) >= 6:
            yield PiiSpan(*match.span(), "IP_ADDRESS", 0.9)


def _phones(text: str) -> Iterator[PiiSpan]:
    # A number with + is found whatever the region.
    for region in ("US", "GB") if _may_hold_phone(text) else ():
        matcher = phonenumbers.PhoneNumberMatcher(
            text, region, leniency=phonenumbers.Leniency.POSSIBLE
        )
        for match in matcher:
            if sum(map(str.isdigit, match.raw_string)) < _MIN_PHONE_DIGITS:
                continue
            tells = _tells_phone(text, match.start, match.end)
            shaped = bool(_PHONE_SHAPE.search(match.raw_string))
            international = match.raw_string.startswith("+")
            other = _TELLS_OTHER_ID.search(_before(text, match.start))
            if tells or (shaped and (international or not other)):
                confidence = 0.9 if international or (tells and shaped) else 0.6
                yield PiiSpan(match.start, match.end, "PHONE_NUMBER", confidence)
    for local in _LOCAL_NUMBER.finditer(text):
        n_digits = sum(map(str.isdigit, local[0]))
        if _MIN_LOCAL_DIGITS <= n_digits <= 15 and _tells_phone(text, *local.span()):
            yield PiiSpan(*local.span(), "PHONE_NUMBER", 0.6)


def _tells_phone(text: str, start: int, end: int) -> bool:
    before = _TELLS_PHONE.search(_before(text, start))
    return bool(before or _TELLS_PHONE_AFTER.match(text, end))


def _blanked(text: str, found: Sequence[PiiSpan]) -> str:
    parts, done = [], 0
    for start, end, *_ in found:
        parts += [text[done:start], "_" * (end - start)]
        done = end
    return "".join([*parts, text[done:]])


def _before(text: str, position: int) -> str:
    return text[max(0, position - _CONTEXT_CHARS) : position]


def has_luhn_digit(digits: str) -> bool:
    """Tell whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    values = [int(digit) for digit in reversed(digits)]
    doubled = sum(sum(divmod(2 * value, 10)) for value in values[1::2])
    return (sum(values[::2]) + doubled) % 10 == 0


def has_iban_remainder(text: str) -> bool:
    """Tell whether the number, rearranged, leaves 1 modulo 97 (ISO 13616)."""
    compact = text.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1
