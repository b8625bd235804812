"""Where in a text personal data or a secret could stand: the least that any pattern needs.

What these functions let through the patterns of ``pii.py`` judge; what they don't, no pattern
matches. So each condition here is a part of what a pattern asks for, and says of which.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.text.kernels.compiled import compiled

__all__ = ["OTHER_LETTER", "OTHER_MARK", "find_places"]

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Codes: TypeAlias = npt.NDArray[np.uint32]
_Ints: TypeAlias = npt.NDArray[np.int64]

OTHER_LETTER: Final = ord("q")
"""What letters beyond ASCII are read as: one that is in no word or mark that is looked for."""
OTHER_MARK: Final = 0
"""What all else beyond ASCII is read as."""

_PADDING: Final = 64  # zeros on both sides of a text, so that looking around needs no check
_MIN_DIGITS: Final = 6  # of a local phone number and of an IPv4 address, the shortest of all
# From digit to digit, as in `_SIX_APART` and, with a label in between, in `_EXTENSION`.
_LONGEST_GAP: Final = 9
_LONGEST_LABEL: Final = 30
_SHORTEST_SECRET: Final = 13  # "eyJ" and ten characters
_SHORTEST_VALUE: Final = 8
_VALUE_BEGINS: Final = 8  # at most that far behind the start of what assigns it
_LONGEST_IBAN: Final = 64
# Places so close together become one piece anyway.
_NEAR: Final = 64

_A, _B, _F, _I, _N, _O, _S, _T, _X, _Z = (ord(char) for char in "abfinostxz")
_ZERO, _NINE, _SPACE = (ord(char) for char in "09 ")
_AT, _COLON, _COMMA, _DASH, _DOT, _EQUALS, _PLUS, _SEMICOLON = (ord(char) for char in "@:,-.=+;")
_QUOTE, _APOSTROPHE = ord('"'), ord("'")


def _words(*words: str) -> _Bytes:
    """Return words as rows of bytes, ended by zeros."""
    rows = np.zeros((len(words), max(map(len, words)) + 1), np.uint8)
    for row, word in zip(rows, words, strict=True):
        row[: len(word)] = list(word.encode())
    return rows


_MARKS: Final = _words(
    "aiza", "akia", "asia", "eyj", "gh", "github_pat_", "glpat-", "hf_", "npm_", "pypi-", "rk_",
    "sg.", "sk-", "sk_", "xox",
)  # fmt: skip
_KEYWORDS: Final = _words("key", "secret", "token", "passwd", "password", "pwd")
_BEGIN: Final = _words("begin ")[0]

# Nearly every word ends its look-up at its first two letters.
_OPENINGS: Final = np.zeros((128, 128), np.bool_)
_OPENINGS[_MARKS[:, 0], _MARKS[:, 1]] = True

# What a character may begin: always, or only at the start of a word; and whether it is in one.
_ALWAYS: Final = 1
_IN_FRONT: Final = 2
_IN_WORD: Final = 4
_ROLES: Final = np.zeros(128, np.uint8)
_ROLES[list(b"abcdefghijklmnopqrstuvwxyz0123456789_")] = _IN_WORD
_ROLES[list(b"0123456789@:=")] |= _ALWAYS
_ROLES[list(b"ib") + _MARKS[:, 0].tolist()] |= _IN_FRONT


@compiled
def _is_digit(char: int) -> bool:
    return _ZERO <= char <= _NINE


@compiled
def _is_letter(char: int) -> bool:
    return _A <= char <= _Z


@compiled
def _is_word(char: int) -> bool:
    return bool(_ROLES[char] & _IN_WORD)


@compiled
def _is_hex(char: int) -> bool:
    return _is_digit(char) or _A <= char <= _F


@compiled
def _starts_with(text: _Bytes, at: int, word: _Bytes) -> bool:
    for i in range(len(word)):
        if word[i] == 0:
            return True
        if text[at + i] != word[i]:
            return False
    return True


@compiled
def _joins(text: _Bytes, begin: int, end: int) -> bool:
    """Tell whether what stands between two digits may belong to one number."""
    if end - begin > _LONGEST_LABEL:
        return False
    is_label, is_gap = False, end - begin <= _LONGEST_GAP
    for at in range(begin, end):
        if text[at] == _X or (text[at] == _I and text[at + 1] == _N and text[at + 2] == _T):
            is_label = True
        if text[at] != _X and _is_word(text[at]):
            is_gap = False
    return is_label or is_gap


@compiled
def _is_iban(text: _Bytes, at: int) -> bool:
    """Tell whether `_IBAN` matches; `at` is its first digit."""
    if not (_is_letter(text[at - 1]) and _is_letter(text[at - 2]) and _is_digit(text[at + 1])):
        return False
    if _is_word(text[at - 3]):
        return False
    at += 2
    for _ in range(11):
        if text[at] == _SPACE:
            at += 1
        if not (_is_digit(text[at]) or _is_letter(text[at])):
            return False
        at += 1
    return True


@compiled
def _is_email(text: _Bytes, at: int) -> bool:
    """Tell whether both neighbours of an @ are those of `_EMAIL`."""
    left, right = text[at - 1], text[at + 1]
    is_left = _is_word(left) or left in (_PLUS, _DASH)
    return is_left and (_is_digit(right) or _is_letter(right) or right == _DASH)


@compiled
def _is_ipv6(text: _Bytes, colon: int) -> bool:
    """Tell whether a colon is the second of what `_IP` matches and an address could be."""
    start = colon
    for _ in range(2):
        if text[start] != _COLON:
            return False
        end = start
        while end - start < 5 and _is_hex(text[start - 1]):
            start -= 1
        if not 1 <= end - start <= 4:
            return False
        start -= 1
    if _is_word(text[start]) or text[start] == _COLON:
        return False
    # Eight groups, or fewer with a double colon, and six characters: no time of day.
    n_colons, n_others, is_short = 0, 0, False
    for at in range(start + 1, start + _PADDING):
        if text[at] == _COLON:
            n_colons += 1
            is_short = is_short or text[at + 1] == _COLON
        elif _is_hex(text[at]):
            n_others += 1
        else:
            break
    return n_others >= 6 and (is_short or n_colons >= 7)


@compiled
def _is_secret(text: _Bytes, at: int) -> bool:
    """Tell whether the start of a word may be that of `_SECRET`."""
    if not _OPENINGS[text[at], text[at + 1]]:
        return False
    for mark in _MARKS:
        if _starts_with(text, at, mark):
            for char in text[at : at + _SHORTEST_SECRET]:
                if not (_is_word(char) or char in (_DASH, _DOT)):
                    return False
            return True
    return False


@compiled
def _is_assigned(text: _Bytes, begin: int, end: int) -> bool:
    """Tell whether `_ASSIGNED_SECRET` may match around an assignment: a sign, or the word "is"."""
    at = begin - 1
    for _ in range(3):
        if text[at] == _SPACE:
            at -= 1
    if text[at] in (_QUOTE, _APOSTROPHE):
        at -= 1
    has_keyword = False
    for keyword in _KEYWORDS:
        length = int(np.argmin(keyword))
        has_keyword = has_keyword or _starts_with(text, at + 1 - length, keyword)
    if not has_keyword:
        return False
    at = end
    for _ in range(3):
        if text[at] == _SPACE:
            at += 1
    if text[at] in (_QUOTE, _APOSTROPHE):
        at += 1
    has_digit = False
    for place in range(at, at + _PADDING // 2):
        char = text[place]
        is_end = char in (_SPACE, _QUOTE, _APOSTROPHE)
        if place < at + _SHORTEST_VALUE and (is_end or char in (_COMMA, _SEMICOLON)):
            return False
        if is_end:
            return has_digit
        has_digit = has_digit or _is_digit(char)
    return True


@compiled
def _is_private_key(text: _Bytes, at: int) -> bool:
    """Tell whether "begin" is that of a private key in `_SECRET`."""
    for back in range(1, 6):
        if text[at - back] != _DASH:
            return False
    return _starts_with(text, at, _BEGIN)


@compiled
def _sign_or_word(text: _Bytes, at: int) -> tuple[int, int]:
    """Return from where to where a sign or the start of a word makes a place, (0, 0): nowhere."""
    char = text[at]
    if char == _AT:
        is_place = _is_email(text, at)
    elif char == _COLON:
        is_place = _is_ipv6(text, at) or _is_assigned(text, at, at + 1)
    elif char == _EQUALS:
        is_place = _is_assigned(text, at, at + 1)
    elif char == _I:
        is_is = text[at + 1] == _S and not _is_word(text[at + 2])
        is_place = is_is and _is_assigned(text, at, at + 2)
    elif char == _B and _is_private_key(text, at):
        end = at + len(_BEGIN) - 1
        while _is_letter(text[end]) or text[end] == _SPACE:
            end += 1
        return at - 5, end
    else:
        is_place = _is_secret(text, at)
    return (at, at + _VALUE_BEGINS) if is_place else (0, 0)


@compiled
def _digit(text: _Bytes, at: int, number: _Ints) -> tuple[int, int]:
    """Count a digit and return from where to where there is a place, (0, 0): nowhere.

    Args:
        text: As in `find_places`, padded.
        at: Of the digit.
        number: State, 0 before a text's first digit: where the number starts, where its last
            digit stands, and how many it has.
    """
    start, end, is_place = number[0], number[1] + 1, False
    if number[2] > 0 and _joins(text, end, at):
        number[2] += 1
    else:
        is_place = number[2] >= _MIN_DIGITS
        number[0], number[2] = at, 1
    number[1] = at
    if _is_iban(text, at):
        return (start if is_place else at - 2), at + _LONGEST_IBAN
    return (start, end) if is_place else (0, 0)


@compiled
def find_places(codes: _Codes, ends: _Ints, folds: _Bytes) -> _Ints:
    """Find where personal data or secrets could stand in texts.

    Args:
        codes: Code points of all texts in a row.
        ends: Where each text ends in `codes`, shape (n,).
        folds: What each code point is read as: ASCII in lower case, white space as a space,
            any digit as a 0, `OTHER_LETTER`, `OTHER_MARK`. What it doesn't reach is a mark.

    Returns:
        Rows of (text, start, end), shape (n_places, 3): texts ascending, offsets into the text.
        A match may reach further, to the next white space.
    """
    places, n_places = np.empty((len(codes) + 1, 3), np.int64), 0
    longest, begin = 0, 0
    for row in range(len(ends)):
        longest = max(longest, ends[row] - begin)
        begin = ends[row]
    text, number = np.zeros(longest + 2 * _PADDING, np.uint8), np.zeros(3, np.int64)

    begin = 0
    for row in range(len(ends)):
        length = ends[row] - begin
        stop = _PADDING + length
        for i in range(length):
            code = codes[begin + i]
            text[_PADDING + i] = folds[code] if code < len(folds) else OTHER_MARK
        text[stop : stop + _PADDING] = 0
        begin = ends[row]

        n_before = n_places
        has_any = False  # without a digit, an @ or a key in it, a text's secrets are but words
        number[:] = 0
        wanted = _ALWAYS | _IN_FRONT
        for i in range(_PADDING, stop + 1):
            role = _ROLES[text[i]]
            is_wanted = role & wanted or i == stop
            wanted = _ALWAYS if role & _IN_WORD else _ALWAYS | _IN_FRONT
            if not is_wanted:
                continue
            if i == stop:  # behind the text its last number ends
                is_number = number[2] >= _MIN_DIGITS
                first, last = (number[0], number[1] + 1) if is_number else (0, 0)
            elif _is_digit(text[i]):
                has_any = True
                first, last = _digit(text, i, number)
            else:
                first, last = _sign_or_word(text, i)
                has_any = has_any or text[i] == _AT or _is_private_key(text, i)
            if last == 0:
                continue
            first, last = first - _PADDING, min(last - _PADDING, length)
            if n_places > n_before and first - places[n_places - 1, 2] < _NEAR:
                n_places -= 1
                first = min(first, places[n_places, 1])
                last = max(last, places[n_places, 2])
            places[n_places, 0], places[n_places, 1], places[n_places, 2] = row, first, last
            n_places += 1
        if not has_any:
            n_places = n_before
    return places[:n_places].copy()
