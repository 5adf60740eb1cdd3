"""What `ranking.features` lets through, and what the learner makes of it."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vowpalwabbit import Workspace

from rankward.errors import InvalidRequest
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.records import Features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOUNDS = FeatureBounds()
PLAIN = Features(b'[{"dish":{"veg":true}}]')
LABEL = '"_label_cost":-1.0,"_label_probability":0.5,"_label_Action":1,"_labelIndex":0,'


def line(context: Features, actions: dict[str, Features], *, label: str = "") -> str:
    """The learner's line for one request."""
    multi = ",".join(
        f'{{"_tag":"{tag}","i":{{"constant":1,"id":"{tag}"}},"j":{features.decode()}}}'
        for tag, features in actions.items()
    )
    return f'{{{label}"FromUrl":{context.decode()},"_multi":[{multi}]}}'


class Learner:
    """The real learner, through the calls of the binding that the service uses."""

    def __init__(self, arguments: str) -> None:
        self.workspace: Any = Workspace(f"{arguments} --json --quiet")

    def pmf(self, context: Features, actions: dict[str, Features]) -> list[float]:
        """Predict, and say nothing of it to the learner."""
        examples = self.workspace._parse(line(context, actions))
        assert len(examples) == 1 + len(actions), "the features changed the structure of the line"
        self.workspace.predict_multi(examples)
        pmf: list[float] = examples[0].get_action_scores()
        self.workspace._finish_example_multi_ex(examples)
        return pmf

    def learn(self, context: Features, actions: dict[str, Features]) -> None:
        """Learn that the first action was worth 1."""
        examples = self.workspace._parse(line(context, actions, label=LABEL))
        assert len(examples) == 1 + len(actions), "the features changed the structure of the line"
        self.workspace.learn_multi(examples)
        self.workspace._finish_example_multi_ex(examples)

    def weights(self) -> set[int]:
        """Indexes of all weights that are not 0."""
        return {index for index in range(self.workspace.num_weights()) if self.workspace.get_weight(index)}


@pytest.fixture(scope="module")
def learner() -> Iterator[Learner]:
    """A learner that the tests share, so that what one teaches it the next has to bear."""
    shared = Learner("--cb_explore_adf --epsilon 0.2 -q :: -b 14")
    yield shared
    shared.workspace.finish()


def allowed(check: Callable[[bytes, FeatureBounds], Features], raw: bytes) -> Features | None:
    """What a check makes of it; None when it is refused."""
    try:
        return check(raw, BOUNDS)
    except InvalidRequest:
        return None


def nested(levels: int) -> bytes:
    """An array that goes so many levels deep."""
    return b"[" + b'{"n":' * levels + b"1" + b"}" * levels + b"]"


@pytest.mark.parametrize("check", [check_context, check_action])
@pytest.mark.parametrize(
    ("raw", "checked"),
    [
        pytest.param(
            b' [ {"visitor": {"device": "phone", "new": true, "old": false, "age": 31}, "top": 0.5} ] ',
            b'[{"visitor":{"device":"phone","new":true,"old":false,"age":31},"top":0.5}]',
            id="plain features stay, in order and without spaces",
        ),
        pytest.param(b'[{"a":null,"b":{"c":null}}]', b'[{"a":"null","b":{"c":"null"}}]', id="null is a string"),
        pytest.param(
            b'[{"_multi":[{"x":1}],"a":1,"_label_cost":1,"b":{"_text":"x y","c":1}}]',
            b'[{"a":1,"b":{"c":1}}]',
            id="names that begin with _ are left out",
        ),
        pytest.param(rb'[{"\u005fmulti":[{}],"a":1}]', b'[{"a":1}]', id="an escaped _ is a _"),
        pytest.param(b'[{"_t":[true,"x"],"_u":1e39,"_v":{"":1},"a":1}]', b'[{"a":1}]', id="unread, so unchecked"),
        pytest.param(b'[{"a":[1,-2.5,0]}]', b'[{"a":[1,-2.5,0]}]', id="numeric arrays stay"),
        pytest.param(b'[{"a":[],"b":{},"c":{"d":[]}}]', b'[{"a":[],"b":{},"c":{"d":[]}}]', id="empty ones stay"),
        pytest.param(b'[{"a":1,"a":2}]', b'[{"a":2}]', id="of two equal names the last wins"),
        pytest.param(
            '[{"é":1,"ж":{"é":"é"},"b":{"日":[1]},"日":[]}]'.encode(),
            '[{"é":1,"%ж":{"é":"é"},"b":{"%日":[1]},"%日":[]}]'.encode(),
            id="a namespace outside ASCII gets a prefix, a feature does not",
        ),
        pytest.param(
            b'[{"a":340000000000000000000000000000000000000,"b":-3.4028234e38,"c":-0.0,"d":1e-300}]',
            b'[{"a":340000000000000000000000000000000000000,"b":-3.4028234e38,"c":-0.0,"d":1e-300}]',
            id="numbers up to the bound stay",
        ),
        pytest.param(
            b'[{"i":{"constant":1,"id":"x"},"j":[1],"FromUrl":{"p":1},"constant":2}]',
            b'[{"i":{"constant":1,"id":"x"},"j":[1],"FromUrl":{"p":1},"constant":2}]',
            id="names of the learner's line are like any other further in",
        ),
        pytest.param(
            rb'[{"a b|c:d":{"e f|g:h":"i j|k:l\u0000\n"}}]',
            rb'[{"a b|c:d":{"e f|g:h":"i j|k:l\u0000\n"}}]',
            id="separators of the learner's text format, and control characters in values",
        ),
    ],
)
def test_features_are_rewritten_only_where_the_learner_needs_it(
    check: Callable[[bytes, FeatureBounds], Features], raw: bytes, checked: bytes, learner: Learner
) -> None:
    """Whatever changes here changes what is learned, and differs from what Personalizer did."""
    features = check(raw, BOUNDS)

    assert features == checked
    assert sum(learner.pmf(features, {"a": features, "b": PLAIN})) == pytest.approx(1.0)
    learner.learn(features, {"a": features, "b": PLAIN})


@pytest.mark.parametrize(
    ("raw", "path", "complaint"),
    [
        (b"{}", "", "is an object: send an array of objects"),
        (b'"x"', "", "is a string: send an array of objects"),
        (b"[1]", "[0]", "is a number: send an object"),
        (b'[{"a":1},[]]', "[1]", "is an array: send an object"),
        (b'[{"":1}]', '[0].""', "is an empty name"),
        (b'[{"a":{"":{}}}]', '[0].a.""', "is an empty name"),
        (rb'[{"a\u0000b":1}]', r"[0].a\u0000b", "control character"),
        (rb'[{"a":{"b\n":1}}]', r"[0].a.b\u000a", "control character"),
        (
            b'[{"dish":{"tags":["hot"]}}]',
            "[0].dish.tags[0]",
            'numbers only: send an object instead, such as {"spicy"',
        ),
        (b'[{"a":[1,true]}]', "[0].a[1]", "is a boolean, but an array among the features holds numbers only"),
        (b'[{"a":[null]}]', "[0].a[0]", "is null, but"),
        (b'[{"a":[[1]]}]', "[0].a[0]", "is an array, but"),
        (b'[{"a":[{"b":1}]}]', "[0].a[0]", "is an object, but"),
        (b'[{"a":3.41e38}]', "[0].a", "is a number outside [-3.4028234e+38, 3.4028234e+38]: scale it"),
        (b'[{"a":-3.41e38}]', "[0].a", "is a number outside"),
        (b'[{"a":[1,-3.41e38]}]', "[0].a[1]", "is a number outside"),
        (b'[{"a":' + b"9" * 400 + b"}]", "[0].a", "is a number outside"),
        (b'[{"a":[' + b"9" * 400 + b"]}]", "[0].a[0]", "is a number outside"),
        (b'[{"a":1e400}]', "", "holds a number outside"),
        (b'[{"a":' + b"9" * 5_000 + b"}]", "", "holds a number outside"),
        (b'[{"a":NaN}]', "", "is not JSON in UTF-8"),
        (rb'[{"a":"\ud800"}]', "", "is not JSON in UTF-8"),
        (rb'[{"\udfff":1}]', "", "is not JSON in UTF-8"),
        (b'[{"a":"\xed\xa0\x80"}]', "", "is not JSON in UTF-8"),
        (b'[{"a":1}', "", "is not JSON in UTF-8"),
        (nested(7), "[0].n.n.n.n.n.n", "is an object nested deeper than 6 levels: flatten it"),
        (b"[" * 100_000, "", "nests far too deeply"),
        (
            b'[{"' + b"n" * 257 + b'":1}]',
            "[0]." + "n" * 40 + "…",
            "is a name of 257 characters, more than 256",
        ),
        (
            ('[{"' + "é" * 256 + '":{}}]').encode(),
            "[0]." + "é" * 40 + "…",
            "is a name of 257 characters with its prefix '%', more than 256",
        ),
        (
            b'[{"a":"' + b"x" * 2_049 + b'"}]',
            "[0].a",
            "is a string of 2049 characters, more than 2048: shorten it",
        ),
        (b'[{"a":[' + b"1," * 2_000 + b"1]}]", "", "holds 2001 features, more than 2000: send fewer"),
        (b"[" + b'{"a":{}},' * 2_000 + b'{"b":1}]', "", "holds 2001 features, more than 2000"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_what_the_learner_could_not_use_is_refused(raw: bytes, path: str, complaint: str) -> None:
    """The caller learns which member is at fault, and what to do about it."""
    for check, root in ((check_context, "contextFeatures"), (check_action, "features")):
        with pytest.raises(InvalidRequest) as refusal:
            check(raw, BOUNDS)

        assert refusal.value.code == "InvalidRankRequest"
        assert refusal.value.target == root + path
        assert refusal.value.message.startswith(f"{root}{path} ")
        assert complaint in refusal.value.message


def test_features_at_their_bounds_are_taken(learner: Learner) -> None:
    """A bound is the last value that works, for us and for the learner."""
    for raw in (
        nested(6),
        b'[{"' + b"n" * 256 + b'":1}]',
        ('[{"' + "é" * 255 + '":{"a":1}}]').encode(),
        b'[{"a":"' + b"x" * 2_048 + b'"}]',
        b'[{"a":[' + b"1," * 1_999 + b"1]}]",
    ):
        features = check_action(raw, BOUNDS)

        learner.learn(features, {"a": PLAIN, "b": PLAIN})
        learner.learn(PLAIN, {"a": features, "b": PLAIN})


@pytest.mark.parametrize(("raw", "checked"), [(b"", b"[]"), (b"null", b"[]"), (b"[]", b"[]"), (b"[{}]", b"[{}]")])
def test_a_context_may_be_empty(raw: bytes, checked: bytes, learner: Learner) -> None:
    """Requests without any context were accepted by the service that we stand in for."""
    context = check_context(raw, BOUNDS)

    assert context == checked
    learner.learn(context, {"a": PLAIN, "b": PLAIN})


def test_a_context_has_no_null_entries() -> None:
    """The contract says so for the context, and only for the context."""
    with pytest.raises(InvalidRequest, match=r"^contextFeatures\[1\] is null: leave it out$"):
        check_context(b'[{"a":1},null]', BOUNDS)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"[null]", b"[{}]", b"[{},null,{}]"])
def test_an_action_has_at_least_one_object_that_is_not_empty(raw: bytes) -> None:
    """An action without features is told apart by its id alone, which is seldom what the caller meant."""
    with pytest.raises(InvalidRequest, match="at least one object that is neither null nor empty") as refusal:
        check_action(raw, BOUNDS)

    assert refusal.value.target == "features"


@pytest.mark.parametrize(
    ("raw", "checked"),
    [
        (b'[null,{},{"a":1},null]', b'[{"a":1}]'),
        (b'[{"_note":1},{"a":1}]', b'[{"a":1}]'),
        (b'[{"_note":1}]', b"[{}]"),
        (b'[{"a":{}}]', b'[{"a":{}}]'),
    ],
)
def test_an_actions_empty_objects_are_dropped(raw: bytes, checked: bytes, learner: Learner) -> None:
    """An object of ignored names only is accepted, and stands for having given something."""
    features = check_action(raw, BOUNDS)

    assert features == checked
    learner.learn(PLAIN, {"a": features, "b": PLAIN})


def test_the_path_of_a_flaw_counts_dropped_objects() -> None:
    """The caller looks for the member in the request as it was sent."""
    with pytest.raises(InvalidRequest, match=r"^features\[2\]\.dish\.tags\[1\] is a string"):
        check_action(b'[null,{},{"dish":{"tags":[1,"hot"]}}]', BOUNDS)


def test_the_learner_is_fed_the_features_that_the_mapping_names() -> None:
    """Models that the real service trained weigh these features: another mapping would orphan them."""
    learner = Learner("--cb_explore_adf --epsilon 0.2 -b 18")
    context = check_context(
        b'[{"visitor":{"device":"phone","returning":true,"banned":false,"age":null},"top":2}]', BOUNDS
    )
    action = check_action('[{"dish":{"kcal":640,"_note":1},"vec":[1,2],"новь":{"x":1},"hot":"yes"}]'.encode(), BOUNDS)

    learner.learn(context, {"pasta": action})

    named = {
        "visitor": ["devicephone", "returning", "agenull"],
        "FromUrl": ["top"],
        "i": ["constant", "idpasta"],
        "dish": ["kcal"],
        "%новь": ["x"],
        "j": ["hotyes"],
    }
    workspace = learner.workspace
    expected = {
        workspace.hash_feature(feature, workspace.hash_space(namespace))
        for namespace, features in named.items()
        for feature in features
    }
    vec = workspace.hash_space("vec")
    constant = 11650396  # the learner's own, in every action
    mask = 2**18 - 1
    assert learner.weights() == {index & mask for index in {*expected, vec, vec + 1, constant}}
    workspace.finish()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="a byte is signed on some processors only")
def test_a_namespace_outside_ascii_would_break_the_learners_memory() -> None:
    """Why such a namespace is given a prefix: without it the process dies. When this fails, it may go."""
    raw = Features('[{"é":{"x":1}}]'.encode())
    program = (
        "from vowpalwabbit import Workspace\n"
        "w = Workspace('--cb_explore_adf --json --quiet')\n"
        f"text = {line(PLAIN, {'a': raw})!r}\n"
        "for _ in range(100): ex = w._parse(text); w.predict_multi(ex); w._finish_example_multi_ex(ex)\n"
    )

    died = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)

    assert died.returncode < 0


parser_names = "_multi _tag _label _label_cost _labelIndex _slots _text _inc _p _a __aid _slot_id _skipLearn _"
line_names = "i j id constant FromUrl c p a 0 -1 1e5 ~ é \x80 \x8c 日本 😀 \ufffe { } [ ] , \" ' \\ | :"
odd_names = [" ", "a b", "a:b|c", "\x7f", "\x7fb", "n" * 256, "é" * 255, "\u2028"]
bad_names = ["", "\t", "\x00", "a\x00b", "\ud800", "n" * 257, "é" * 256]
fair_names = st.one_of(
    st.sampled_from([*parser_names.split(" "), *line_names.split(" "), *odd_names]),
    st.text(st.characters(min_codepoint=32, codec="utf-8"), min_size=1, max_size=6),
)
fair_numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**32, 2**63, -(2**63) - 1, 2**64, 10**38, 3.4028234e38, -3.4028234e38, -0.0, 5e-324]),
    st.floats(-3.4e38, 3.4e38),
)
fair_texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(["\x00", "a\x00", "é:| " * 512])
)
fair_values = st.recursive(
    st.one_of(st.none(), st.booleans(), fair_numbers, fair_texts, st.lists(fair_numbers, max_size=4)),
    lambda inner: st.dictionaries(fair_names, inner, max_size=3),
    max_leaves=8,
)
fair_arrays = st.lists(st.dictionaries(fair_names, fair_values, min_size=1, max_size=4), min_size=1, max_size=3)
wild_values = st.recursive(
    st.one_of(fair_values, st.sampled_from([10**400, 4 * 10**38, 3.5e38, math.inf, math.nan, "x" * 2_049, "\ud800"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.one_of(fair_names, st.sampled_from(bad_names)), inner, max_size=3),
    ),
    max_leaves=6,
)
wild_arrays = st.one_of(st.lists(wild_values, max_size=2), wild_values)
arrays = st.one_of(fair_arrays, fair_arrays, wild_arrays).map(lambda array: json.dumps(array).encode())


@settings(max_examples=300, derandomize=True, database=None)
@given(context=arrays, action=arrays)
@example(context='[{"é":{"x":"y"}}]'.encode(), action='[{"é":[1]}]'.encode())
def test_whatever_is_let_through_the_learner_can_use(learner: Learner, context: bytes, action: bytes) -> None:
    """Nobody who can send a request may stop the service, or teach it something it cannot recover from."""
    shared = allowed(check_context, context) or PLAIN
    actions = {"a": allowed(check_action, action) or PLAIN, "b": PLAIN}

    pmf = learner.pmf(shared, actions)
    learner.learn(shared, actions)

    assert len(pmf) == 2
    assert all(math.isfinite(probability) and probability >= 0 for probability in pmf)
    assert sum(pmf) == pytest.approx(1.0, abs=1e-5)
    assert sum(learner.pmf(PLAIN, {"a": PLAIN, "b": PLAIN})) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=200, derandomize=True, database=None)
@given(raw=arrays)
def test_what_was_checked_checks_to_the_same(raw: bytes) -> None:
    """What is logged can be checked again, on import say, and is learned from as it was."""
    with contextlib.suppress(InvalidRequest):
        context = check_context(raw, BOUNDS)
        assert allowed(check_context, context) == context
    with contextlib.suppress(InvalidRequest):
        action = check_action(raw, BOUNDS)
        assert allowed(check_context, action) == action
        assert action == b"[{}]" or allowed(check_action, action) == action


@settings(max_examples=200, derandomize=True, database=None)
@given(raw=st.one_of(st.binary(max_size=40), st.text('[]{}",:\\u0d8ea1-.e _', max_size=30).map(str.encode)))
def test_bytes_that_are_not_features_are_the_callers_mistake(raw: bytes) -> None:
    """Anything but a refusal would be answered as our own failure."""
    for check in (check_context, check_action):
        with contextlib.suppress(InvalidRequest):
            assert isinstance(json.loads(check(raw, BOUNDS)), list)
