"""What `summary.json` holds.  docs/summary_json.md explains each field.

A score lies in 0 .. 1 but for the metrics that `units` names.
"""

from typing import Any, Literal, NotRequired, TypedDict

# Of one center, as `Task.metrics` returns them: {metric: float}, 'n': images, and what a task adds:
# 'classes' (scores of each class), 'confusion', 'boxes' and so on (docs/summary_json.md).
Scores = dict[str, Any]
GROUPS = ('seen', 'unseen')  # of centers
OF_ONE_MODEL = ('confusion', 'reliability')  # among them: what counts one model's answers


class Intervals(TypedDict):
    """95 % intervals [low, high] of the scores of a block."""

    mean: dict[str, list[float]]
    centers: dict[str, dict[str, list[float]]]


class Block(TypedDict):
    """Scores of one kind of model at several centers."""

    mean: dict[str, float]
    worst: dict[str, float]
    centers: dict[str, Scores]
    intervals: NotRequired[Intervals]


class SeenBlock(Block):
    """The same, with the scores of all centers' images taken together."""

    pooled: Scores


class Groups(TypedDict):
    """A block of the seen centers and one of the unseen ones, if there are any."""

    seen: Block
    unseen: Block | None


class Finetuned(TypedDict):
    """Scores after labelled steps at each seen center."""

    seen: Block


class Own(TypedDict):
    """Where a seen center chooses its own model on its validation images: `seen` is of its choice.

    generated: scores of the refined models, made without labels.  chosen: {center: kind}.
    candidates: {kind: scores of that kind at all centers}.
    """

    generated: SeenBlock
    chosen: dict[str, str]
    candidates: dict[str, SeenBlock]


class Controls(TypedDict):
    """Scores under descriptors of other centers."""

    shuffled: Groups | None
    sampled: int | None


class Cost(TypedDict):
    """What a round takes, and how large the models are."""

    bytes_up: int
    bytes_down: int
    round_seconds: float | None
    compile_seconds: float | None
    parameters: dict[str, int]


class SecureRound(TypedDict):
    """What the sum of a round costs, the median over the rounds of the last process.

    Seconds: `keys` and `agree` of all clients together, `mask` of one, `unmask` of the server.
    """

    keys: float
    mask: float
    agree: float
    unmask: float
    bytes_up: float
    bytes_down: float


class SecureSums(TypedDict):
    """How the sums of a run were taken under masks."""

    clients: int
    drawn: int
    identities: str
    distributed_noise: bool
    threshold: int
    min_honest: int
    colluding: int
    bits: int
    word: int
    server_saw: list[str]
    not_covered: list[str]
    a_round: SecureRound | None


class ByColumn(TypedDict):
    """Scores of the images that share a value of a column of the data's table: {value: scores}."""

    column: str
    seen: dict[str, dict[str, Any]]
    unseen: dict[str, dict[str, Any]] | None


class Resolution(TypedDict):
    """At which size masks were scored."""

    size: Literal['own', 'model']
    pixels: int
    why: str


class Summary(TypedDict):
    """A finished run."""

    method: str
    title: str
    task: str
    algorithm: str
    seed: int
    held_out: str
    rounds: int
    device: str
    score_on: Literal['test', 'val']
    lower_is_better: list[str]
    units: dict[str, str]
    headline: str
    resolution: Resolution | None
    server_model: bool
    at_unseen: list[str]
    sum_only: bool
    seen: SeenBlock
    unseen: Block | None
    center_model: Groups | None
    controls: Controls
    finetuned: NotRequired[Finetuned]
    own: NotRequired[Own]
    adapted: NotRequired[Block | None]
    by: NotRequired[ByColumn]
    base: NotRequired[dict[str, Any]]
    oracle: NotRequired[dict[str, Block]]
    secure: NotRequired[SecureSums]
    cost: Cost
    privacy: dict[str, Any]
    config: dict[str, Any]
