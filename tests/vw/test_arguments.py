"""Policies: what passes the allow-list, what does not, and what the learner makes of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vowpalwabbit import Workspace
from vowpalwabbit.pyvw import get_all_vw_options

from rankward.errors import InvalidPolicy
from rankward.vw.arguments import _SHORT, _STRIPPED, ALLOWED, ProblemType, namespace_token, parse_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = " -b 10"  # a small table, so that a test makes many learners in little time

ACCEPTED = [
    "--cb_explore_adf",
    "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::",
    "--cb_explore_adf --epsilon 0.2 -q ::",
    "--cb_explore_adf --epsilon 0.2 -q Fj --ignore_linear F",
    "--cb_explore_adf --epsilon 0.05 -q Fj --ignore_linear F",
    "--cb_explore_adf --squarecb --gamma_scale 10 -q Fj --ignore_linear F --epsilon 0.02",
    "--cb_explore_adf --squarecb --gamma_scale 100 -l 0.1 --epsilon 0.02",
    "--cb_explore_adf --synthcover -q Fj --ignore_linear F",
    "--cb_explore_adf --synthcover --synthcoverpsi 0.2 --synthcoversize 10",
    "--cb_explore_adf --regcbopt --mellowness 0.01 -q Fj",
    "--cb_explore_adf --regcb --mellowness .01 --cb_min_cost -1 --cb_max_cost=0",
    "--cb_explore_adf --regcb --regcbopt",
    "--cb_explore_adf --bag 3 --greedify --first_only",
    "--cb_explore_adf --cover 3 --nounif --psi 0.1 --cb_type dr",
    "--cb_explore_adf --first 2",
    "--cb_explore_adf --softmax --lambda 4",
    "--cb_explore_adf --rnd 2 --rnd_alpha 0.1 --rnd_invlambda 0.2",
    "--cb_explore_adf --cb_dro --cb_dro_alpha 0.1 --cb_dro_tau 0.99 --cb_dro_wmax 100",
    "--cb_explore_adf --cb_type ips --clip_p 0.1",
    "--cb_explore_adf --cb_type dm",
    "--cb_explore_adf --cb_type sm",
    "--cb_explore_adf --cb_adf --l1 1e-6 --l2=1E-6 --no_bias_regularization",
    "--cb_explore_adf --sgd --power_t=0.5 --initial_t 1 --loss_function squared",
    "--cb_explore_adf --adaptive --normalized --invariant -l0.1",
    "--cb_explore_adf --coin --ftrl_alpha 0.1",
    "--cb_explore_adf --ftrl --ftrl_alpha 0.1 --ftrl_beta 0.2",
    "--cb_explore_adf --pistol",
    "--cb_explore_adf -qFj --quadratic=vj --cubic Fij --interactions Fijv --interactions ::",
    "--cb_explore_adf --ignore x --keep Fijv --noconstant",
    "--cb_explore_adf -b18 --hash all --hash_seed 7 --random_seed 7 --chain_hash",
    "--ccb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::",
    "--ccb_explore_adf --cb_explore_adf --squarecb --epsilon 0.1",
]

MALFORMED = [
    "",
    "   ",
    "--cb_explore_adf " + "-q Fj " * 200,
    "--cb_explore_adf --epsilon",
    "--cb_explore_adf --epsilon=",
    "--cb_explore_adf model.vw",
    "--cb_explore_adf -q Fj Fd",
    "--cb_explore_adf -- 0.2",
    "--cb_explore_adf -",
    "--cb_explore_adf --squarecb=1",
    "--cb_explore_adf --epsilon '0.2'",
    '--cb_explore_adf --epsilon "0.2"',
    "--cb_explore_adf\n--epsilon 0.2",
    "--cb_explore_adf\t--epsilon 0.2",
    "--cb_explore_adf\xa0--daemon",
    "--cb_explore_adf\x1c--daemon",
    "--cb_explore_adf\0",
    "--cb_explore_adf -q \\x46j",
    "--cb_explore_adf -q Fé",
    "--cb_explore_adf -q F|",
    "--cb_explore_adf --epsilon 0.\uff12",
]

REFUSED = [
    "--epsilon 0.2",
    "--cb_adf",
    "--dsjson",
    "--cats 4 --bandwidth 1",
    "--slates --cb_explore_adf",
    "--cb_explore_ad",
    "--cb_explore_adf --eps 0.2",
    "--cb_explore_adf --EPSILON 0.2",
    "--cb_explore_adf --squarecb --elim",
    "--cb_explore_adf --large_action_space",
    "--cb_explore_adf --explore_eval",
    "--cb_explore_adf --regcb --coin",
    "--cb_explore_adf --regcbopt --ftrl",
    "--cb_explore_adf --regcb --cb_min_cost -1",
    "--cb_explore_adf --regcb --cb_min_cost 0 --cb_max_cost 0",
    "--cb_explore_adf --squarecb --softmax",
    "--cb_explore_adf --squarecb --cb_type dr",
    "--cb_explore_adf --cover 3 --cb_type dm",
    "--cb_explore_adf --coin --adaptive",
    "--cb_explore_adf --coin --ftrl",
    "--cb_explore_adf --epsilon 0.2 --epsilon 0.3",
    "--cb_explore_adf --epsilon 0.2 --epsilon=0.2",
    "--cb_explore_adf -l 0.2 --learning_rate 0.2",
    "--cb_explore_adf --cb_explore_adf",
    "--cb_explore_adf --epsilon 1.1",
    "--cb_explore_adf --epsilon -0.1",
    "--cb_explore_adf --epsilon nan",
    "--cb_explore_adf --epsilon inf",
    "--cb_explore_adf --epsilon 0x1",
    "--cb_explore_adf --epsilon 1_0",
    "--cb_explore_adf --epsilon --daemon",
    "--cb_explore_adf --epsilon -d",
    "--cb_explore_adf --bag 0",
    "--cb_explore_adf --bag 33",
    "--cb_explore_adf --bag 2.5",
    "--cb_explore_adf --cover 0",
    "--cb_explore_adf --synthcover --synthcoversize 0",
    "--cb_explore_adf --synthcover --synthcoverpsi 0",
    "--cb_explore_adf --rnd 2 --rnd_alpha 0",
    "--cb_explore_adf -b 9",
    "--cb_explore_adf -b 25",
    "--cb_explore_adf -l=0.1",
    "--cb_explore_adf -l 1e999",
    "--cb_explore_adf -q F",
    "--cb_explore_adf -q Fjd",
    "--cb_explore_adf -q=::",
    "--cb_explore_adf -q -d",
    "--cb_explore_adf --cubic :::",
    "--cb_explore_adf --cubic F:j",
    "--cb_explore_adf --interactions Fijvd",
    "--cb_explore_adf --ignore :",
    "--cb_explore_adf --ignore F-",
    "--cb_explore_adf " + "-qFj " * 101,
    "--cb_explore_adf --cb_type xyz",
    "--cb_explore_adf --loss_function logistic",
    "--cb_explore_adf --hash_seed 4294967296",
]

FILES_SOCKETS_DRIVER = [
    *("-d", "--data", "-i", "--initial_regressor", "-f", "--final_regressor", "-p", "--predictions", "-r"),
    *("--raw_predictions", "-c", "--cache", "--cache_file", "-k", "--kill_cache", "--compressed"),
    *("--readable_model", "--invert_hash", "--dump_json_weights_experimental", "--feature_mask"),
    *("--input_feature_regularizer", "--output_feature_regularizer_binary"),
    *("--output_feature_regularizer_text", "--dictionary", "--dictionary_path", "--audit_regressor"),
    *("--extra_metrics", "--pid_file", "--port_file", "--epsilon_decay_audit", "--csv", "--flatbuffer"),
    *("--search_allowed_transitions", "--save_per_pass", "--id", "--predict_only_model", "--sendto"),
    *("--daemon", "--foreground", "--port", "--num_children", "--no_daemon", "--span_server"),
    *("--span_server_port", "--unique_id", "--total", "--node", "--driver_output", "--driver_output_off"),
    *("--log_level", "--log_output", "--limit_output", "-P", "--progress", "-a", "--audit", "--version"),
    *("-h", "--help", "--dry_run", "-t", "--testonly", "--passes", "--examples", "--thread_pool_size"),
    *("--ring_size", "--example_queue_limit", "--print", "--binary_parser"),
]

EXPLORERS = ["", "--first 2", "--bag 3", "--cover 3", "--squarecb", "--softmax", "--synthcover", "--rnd 2"]


@pytest.mark.parametrize("text", ACCEPTED)
def test_an_accepted_policy_loads_and_gives_a_pmf(text: str) -> None:
    """What passes the list must be something the learner can work with, or a loop would break later."""
    policy = parse_policy(text)
    learner_text = policy.learner_text + ("" if policy.names("bit_precision") else SMALL)

    with Workspace(learner_text + " --json --quiet") as workspace:
        if policy.problem_type is ProblemType.MULTI_SLOT:
            return  # its slots are another mapping: that it loads is enough
        for cost in (-1.0, 0.0, -1.0):
            learn(workspace, cost)
        probabilities = predict(workspace)

    assert policy.text == text
    assert len(probabilities) == 3
    assert all(math.isfinite(probability) and probability >= 0 for probability in probabilities)
    total = sum(probabilities)
    # RegCB gives every tied action probability 1: who asks the learner has to mend that
    assert total == pytest.approx(1, abs=1e-5) or (policy.explorer in {"regcb", "regcbopt"} and total > 1)


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_policy_is_refused(text: str) -> None:
    """Only a strict alphabet gets through, so that no quote, escape or odd space can smuggle an option."""
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text)

    assert caught.value.code == "InvalidPolicyContract"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", REFUSED)
def test_an_unsafe_or_senseless_policy_is_refused(text: str) -> None:
    """A policy that could not learn, or not be bounded, must be told from one that can before it is kept."""
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text)

    assert caught.value.code == "InvalidPolicyConfiguration"


@pytest.mark.parametrize("option", FILES_SOCKETS_DRIVER)
@pytest.mark.parametrize("shape", ["{} x", "{}", "{}=x"])
def test_options_that_touch_the_outside_are_refused_by_name(option: str, shape: str) -> None:
    """A policy comes over the network: it must not read a file, open a socket or end the process."""
    with pytest.raises(InvalidPolicy, match=rf"^{option}\b.* is refused: it ") as caught:
        parse_policy("--cb_explore_adf " + shape.format(option))

    assert caught.value.code == "InvalidPolicyConfiguration"


def test_every_option_of_the_learner_is_on_the_list_or_refused() -> None:
    """A new release of the learner must not widen what a policy can do."""
    known = list(learner_options())
    for name, short in known:
        spellings = [f"--{name}", *([f"-{short}"] if short else [])]
        for spelling in spellings if name not in ALLOWED and name not in _STRIPPED else []:
            for value in ("", " 1", " x", "=1"):
                with pytest.raises(InvalidPolicy, match=f"^{spelling} is refused"):
                    parse_policy(f"--cb_explore_adf {spelling}{value}")

    names = {name for name, _ in known}
    assert len(names) > 300
    assert names >= ALLOWED.keys()
    assert names >= _STRIPPED
    assert {short: name for name, short in known if short} == _SHORT


@given(
    st.lists(
        st.one_of(
            st.sampled_from(ACCEPTED),
            st.sampled_from([f"--{name}" for name in ALLOWED] + FILES_SOCKETS_DRIVER),
            st.sampled_from(["0.1", "3", "-1", "::", "Fj", "--", "-", "-qFj", "-b18", "-d/x", "=", "x=-i"]),
            st.text(st.sampled_from("-dqilb=:.x1 "), max_size=6),
        ),
        max_size=6,
    )
)
def test_no_option_off_the_list_gets_through(tokens: list[str]) -> None:
    """However tokens are put together, what the learner is given holds only options of the list."""
    try:
        policy = parse_policy(" ".join(["--cb_explore_adf", *tokens]))
    except InvalidPolicy:
        return

    given_tokens = policy.learner_text.split()
    options = [token for token in given_tokens if token.startswith("-") and not is_number(token)]
    assert all(token.startswith("--") and token[2:] in ALLOWED for token in options)
    assert len(given_tokens) == len(options) + sum(ALLOWED[token[2:]] is not None for token in options)
    assert parse_policy(policy.text) == policy


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Nothing but a refusal may come of a policy that makes no sense."""
    try:
        parse_policy("--cb_explore_adf " + text)
    except InvalidPolicy as refusal:
        message = refusal.message
    else:
        message = ""
    assert message.isprintable()


def test_options_of_input_and_output_are_stripped() -> None:
    """The original took them, and its own documents show them: an exported policy must still be taken."""
    policy = parse_policy(
        " --dsjson  --cb_explore_adf --quiet --epsilon=0.2 --save_resume -qFj  --no_stdin"
        " --preserve_performance_counters --json "
    )

    assert policy.text == "--cb_explore_adf --epsilon=0.2 -qFj"
    assert policy.learner_text == "--cb_explore_adf --epsilon 0.2 --quadratic Fj"


def test_the_multi_slot_option_wins() -> None:
    """The reference reads the problem type off in this order, and so does the learner."""
    assert parse_policy("--cb_explore_adf").problem_type is ProblemType.SINGLE_SLOT
    assert parse_policy("--cb_explore_adf --ccb_explore_adf").problem_type is ProblemType.MULTI_SLOT


def test_regcb_is_given_bounds_of_cost_that_its_text_does_not_show() -> None:
    """Without them it stays uniform, silently; but a policy must come back as it was sent."""
    policy = parse_policy("--cb_explore_adf --regcb")

    assert policy.text == "--cb_explore_adf --regcb"
    assert policy.learner_text == "--cb_explore_adf --regcb --cb_min_cost -1 --cb_max_cost 0"
    named = parse_policy("--cb_explore_adf --regcb --cb_min_cost -1 --cb_max_cost 1")
    assert named.learner_text == named.text


def test_epsilon_is_replaced_where_it_stands() -> None:
    """The exploration percentage and `--epsilon` are one number; the rest of the policy is the caller's."""
    policy = parse_policy("--cb_explore_adf --epsilon=0.2 -q ::")

    assert policy.epsilon == 0.2
    assert policy.with_epsilon(0.3).text == "--cb_explore_adf --epsilon 0.3 -q ::"
    assert policy.with_epsilon(0).text == "--cb_explore_adf --epsilon 0 -q ::"
    assert policy.with_epsilon(1e-5).epsilon == 1e-5
    assert parse_policy("--cb_explore_adf").epsilon is None


@pytest.mark.parametrize("explorer", EXPLORERS)
def test_the_learner_honours_an_added_epsilon(explorer: str) -> None:
    """Whatever the way of exploring, no action may fall below epsilon / K."""
    policy = parse_policy(f"--cb_explore_adf {explorer}").with_epsilon(0.6)
    assert policy.epsilon == 0.6

    with Workspace(policy.learner_text + SMALL + " --json --quiet") as workspace:
        for _ in range(10):
            learn(workspace, -1.0)
        probabilities = predict(workspace)

    assert min(probabilities) >= 0.6 / 3 - 1e-6
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_regcb_takes_no_epsilon() -> None:
    """The learner would swallow the option and ignore it, which would look like a floor that is not there."""
    policy = parse_policy("--cb_explore_adf --regcb")

    assert policy.with_epsilon(0.3) is policy


@pytest.mark.parametrize(
    ("options", "exact"),
    [
        *[("", True), ("--squarecb", True), ("--softmax --coin", True), ("--cb_type dm --softmax", True)],
        *[("--bag 3", False), ("--cover 3", False), ("--rnd 3", False), ("--softmax --cb_dro", False)],
        *[("--softmax --cb_type dr", False), ("--softmax --sgd", False), ("--softmax --normalized", False)],
        *[("--softmax --sgd --power_t 0", True), ("--softmax --sgd --adaptive", True)],
    ],
)
def test_what_is_said_to_resume_exactly_does(options: str, exact: bool, tmp_path: Path) -> None:
    """A rebuild equals what ran live only where this is right."""
    policy = parse_policy("--cb_explore_adf " + options)
    assert policy.resumes_exactly is exact
    if not exact:
        return
    arguments = policy.learner_text + SMALL + " --json --quiet"
    model = tmp_path / "model.vw"
    costs = [-float(index * index % 7 < 3) for index in range(30)]

    with Workspace(arguments) as live:
        for cost in costs:
            learn(live, cost)
        live.save(str(model))
        with Workspace(f"{arguments} -i {model}") as resumed:
            for workspace in (live, resumed):
                for cost in costs:
                    learn(workspace, cost)
            assert predict(resumed) == predict(live)


@given(st.sets(st.sampled_from([chr(code) for code in range(33, 127) if chr(code) != ":"]), max_size=4))
def test_derived_interactions_reach_the_learner_by_escapes(letters: set[str]) -> None:
    """A namespace may begin with a quote or a dash, and must not become an option by that."""
    pairs = [letter + "j" for letter in sorted(letters)]
    policy = parse_policy("--cb_explore_adf -q Fj").with_interactions(pairs, sorted(letters))

    assert policy.text == "--cb_explore_adf -q Fj"
    tokens = policy.learner_text.split(" ")[3:]
    assert tokens[0::2] == ["--quadratic"] * len(letters) + ["--ignore_linear"] * len(letters)
    assert all(token.replace("\\", "").isalnum() for token in tokens[1::2])


def test_an_escaped_letter_names_its_namespace() -> None:
    """The learner decodes escapes only after it has split its arguments; it must still know the letter."""
    for letter in "#-\"'\\=|~a":
        token = namespace_token(letter + "j")
        with Workspace(f"--cb_explore_adf{SMALL} --quadratic {token} --json --quiet") as workspace:
            example = workspace._parse(
                f'{{"FromUrl":[{{{json.dumps(letter)}:{{"x":1}}}}],"_multi":[{{"j":[{{"y":1}}]}}]}}'
            )
            workspace.predict_multi(example)
            assert example[1].get_feature_number() == 3, letter  # y, the constant, and the pair
            workspace._finish_example_multi_ex(example)


# Asking the learner.


def learner_options() -> Iterator[tuple[str, str]]:
    """Every option the learner knows: long name, and short name or nothing."""
    for groups in get_all_vw_options().values():
        for _, options in groups:
            for option in options:
                yield option.name, option.short_name


def predict(workspace: Any) -> list[float]:
    """Probabilities of three actions."""
    examples = workspace._parse(request())
    workspace.predict_multi(examples)
    probabilities = list(examples[0].get_action_scores())
    workspace._finish_example_multi_ex(examples)
    return probabilities


def learn(workspace: Any, cost: float) -> None:
    """Learn the cost of the second action."""
    label = f'"_label_cost":{cost},"_label_probability":0.5,"_label_Action":2,"_labelIndex":1,'
    examples = workspace._parse(request(label))
    workspace.learn_multi(examples)
    workspace._finish_example_multi_ex(examples)


def request(label: str = "") -> str:
    """Three actions in one context, as the learner reads them."""
    actions = ",".join(
        f'{{"_tag":"{name}","i":{{"constant":1,"id":"{name}"}},"j":[{{"size":{size}}}]}}'
        for size, name in enumerate("abc")
    )
    return f'{{{label}"FromUrl":[{{"hour":7,"visitor":{{"device":"phone"}}}}],"_multi":[{actions}]}}'


def is_number(token: str) -> bool:
    """Whether a token that begins with a dash is a negative number."""
    try:
        float(token)
    except ValueError:
        return False
    return True
