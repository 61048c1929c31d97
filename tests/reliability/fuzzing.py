"""A5: mutated documents and pictures; only our own errors, in bounded time and memory."""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.reliability.figures import Figure, judged
from tests.reliability.targets import TARGETS, Target, accepts, decoder, pictures

_MAX_SECONDS, _MAX_MB = 1.0, 200.0
_HOSTILE = (
    "", "-1", "0", "1e999", "-1e999", "NaN", "Infinity", "9" * 30, "9" * 5000, "1e-400", "0x10",
    "1_0", "\u0663", " ", "null", "true", '"', "'", "\\ud800", "\ud800", "../../x", "/etc/passwd",
    "C:\\x", "\0", "&a [*a]", "*a", "!!python/object/apply:os.system ['x']", "2024-13-45", "<<",
    "[" * 3000, "{", '{"a":' * 3000, "<a>" * 2000, "<!DOCTYPE a [<!ENTITY b 'c'>]>",
    "&b;", "&#0;", "]]>", "=1+1",
    "\r",    "[]", "{}", "[1]", '{"a": 1}',
)  # fmt: skip
_VALUES = ("-1", "0", "1e999", "1.5", "9" * 30, "9" * 5000, "1e-400", "null", "true", '"x"',
           '"\\ud800"', "[]", "{}", "[1]", "[[1, 2]]", '{"a": 1}', "NaN", "99", '"1"', "1e308",
           "-0.0")  # fmt: skip
_HOWS = ("value", "value", "value", "value", "replace", "delete", "insert", "repeat", "cut")

_edits = st.lists(
    st.tuples(
        st.integers(0, 4000),
        st.sampled_from(_HOWS),
        st.sampled_from(_HOSTILE) | st.text(max_size=8) | st.floats().map(str),
        st.sampled_from(_VALUES) | st.floats().map(str) | st.integers().map(str),
    ),
    min_size=1,
    max_size=3,
)
_byte_edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6)


@st.composite
def mutants(draw: st.DrawFn, sound: bytes) -> bytes:
    """A sound document with some of its words, then some of its bytes changed; or any bytes."""
    kind = draw(st.sampled_from(("words", "words", "words", "bytes", "anything")))
    if kind == "anything":
        return draw(st.binary(max_size=300))
    data = sound
    if kind == "words":
        data = _edited(sound.decode("latin-1"), draw(_edits))
    changed = bytearray(data)
    for place, value in draw(_byte_edits) if kind == "bytes" else ():
        changed[place % len(changed)] = value
    return bytes(changed)


def _edited(text: str, edits: list[tuple[int, str, str, str]]) -> bytes:
    words = _words(text)
    for place, how, hostile, value in edits:
        at = place % max(len(words), 1)
        numbers = [i for i, word in enumerate(words) if word[:1].isdigit()]
        if how == "value" and numbers:  # the document stays well-formed
            words[numbers[place % len(numbers)]] = value
        elif how == "replace":
            words[at : at + 1] = [hostile]
        elif how == "insert":
            words.insert(at, hostile)
        elif how == "delete":
            del words[at : at + 1]
        elif how == "repeat":
            words[at:at] = words[at : at + 7]
        else:
            del words[at:]
    return "".join(words).encode("utf-8", "surrogatepass")


def _words(text: str) -> list[str]:
    """Numbers and names as one piece each, all else as single characters."""
    words: list[str] = []
    for character in text:
        inside = character.isalnum() or character in "._-"
        if words and inside and (words[-1][-1].isalnum() or words[-1][-1] in "._-"):
            words[-1] += character
        else:
            words.append(character)
    return words


class _Costs:
    """The slowest case, and the one that took most memory."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.megabytes = 0.0
        self.cases = self.accepted = 0

    def run(self, target: Target, data: bytes, folder: Path) -> None:
        """Run one case."""
        began, before = time.process_time(), _peak()
        self.accepted += accepts(target, data, folder)
        self.seconds = max(self.seconds, time.process_time() - began)
        self.megabytes = max(self.megabytes, _peak() - before)
        self.cases += 1

    def faults(self, name: str) -> list[str]:
        """What went beyond the bounds."""
        slow = [f"{name}: a case took {self.seconds:.1f} s"] if self.seconds > _MAX_SECONDS else []
        large = f"{name}: a case took {self.megabytes:.0f} MB more"
        return slow + ([large] if self.megabytes > _MAX_MB else [])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz_parser(name: str, cases: int) -> tuple[_Costs, list[str]]:
    """Give a parser that many mutants of its sound document.

    Returns:
        What it cost, and the first error that is not ours, made small by hypothesis.
    """
    sound, target = TARGETS[name]
    costs = _Costs()
    with tempfile.TemporaryDirectory() as folder:
        if not accepts(target, sound, Path(folder)):
            return costs, [f"{name}: its sound document is refused"]

        @settings(
            max_examples=cases, deadline=None, derandomize=True, database=None,
            report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(mutants(sound))
        def search(data: bytes) -> None:
            costs.run(target, data, Path(folder))

        try:
            search()
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            notes = " ".join(getattr(error, "__notes__", []))
            return costs, [f"{name}: {type(error).__name__}: {str(error)[:200]} {notes[:300]}"]
    return costs, costs.faults(name)


def fuzz_decoder(cases: int, seed: int = 0) -> tuple[_Costs, list[str]]:
    """Decode pictures with bytes changed, cut out, doubled."""
    dice = np.random.default_rng(seed)
    bases = pictures()
    costs, faults = _Costs(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cases):
            data = _damaged(bases[number % len(bases)], dice)
            try:
                costs.run(decoder, data, Path(folder))
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                faults.append(f"decoder: case {number}: {type(error).__name__}: {error}")
    return costs, faults + costs.faults("decoder")


def _damaged(data: bytes, dice: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(dice.integers(1, 6))):
        near = 80 if dice.random() < 0.5 else len(changed)  # headers are where it matters
        at = int(dice.integers(min(near, len(changed)) or 1))
        how = dice.integers(4)
        if how == 0:
            changed[at : at + 1] = bytes([int(dice.choice([0, 1, 0x7F, 0x80, 0xFF]))])
        elif how == 1:
            changed[at : at + 4] = dice.bytes(4)
        elif how == 2:
            del changed[at : at + int(dice.integers(1, 50))]
        else:
            changed[at:at] = changed[at : at + int(dice.integers(1, 50))]
    return bytes(changed)


def parsers_hold(cases: int, mutants_of_pictures: int) -> Figure:
    """A5: every parser and the decoder."""
    faults: list[str] = []
    slowest = 0.0
    for name in TARGETS:
        costs, found = fuzz_parser(name, cases)
        slowest, faults = max(slowest, costs.seconds), faults + found
    costs, found = fuzz_decoder(mutants_of_pictures)
    slowest, faults = max(slowest, costs.seconds), faults + found
    reached = (
        f"{len(TARGETS)} parsers x {cases} cases, decoder {mutants_of_pictures} mutants: "
        f"{len(faults)} faults, slowest case {slowest:.2f} s"
    )
    return judged(
        "A5", "fuzzed input: only our errors, below 1 s and 200 MB a case", reached, faults
    )
