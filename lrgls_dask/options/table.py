"""Every option of the estimator once: type, default, what it may be, what it is for.

The constructor, its docstring and checks, the flags of the command line and saved fits read this table.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, TypeVar, dataclass_transform, get_args

import numpy as np
from dask.utils import parse_bytes

from lrgls_dask.checks import (
    Allowed,
    FactorsOrWay,
    Flag,
    FlagOrCall,
    FlagOrWord,
    Number,
    NumbersOfFactors,
    OneOf,
    Place,
    WholeNumber,
    number,
    one_of,
)
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.options.covariances import DESCRIBED, Described
from lrgls_dask.options.rules import CHOSEN, RULES, check_improper, rules_of

__all__ = ["CG_MAXIT", "OPTIONS", "Engine", "EstimatorOptions", "Option", "Use", "estimator"]

T = TypeVar("T")
CG_MAXIT = 500  # far more than a GLS step takes with the preconditioner it has

Engine = Literal["auto", "compress", "stream"]
Algorithm = Literal["als", "fgls", "em", "ols"]
SigmaStep = Literal["ml", "pca"]
Use = Literal["t", "normal", "system-t"]
Divisor = Literal["Theil", "max"]
Missing = Literal["raise", "em", "drop"]
Unusable = Literal["raise", "skip"]
FoldsOf = Literal["rows", "blocks"]
Rank = int | Literal["auto", "bic", "cv", "parallel", "eigenvalue-ratio"]
Improper = Literal["warn", "avoid"]
Covariance = Literal["lowrank", "full", "diagonal"]


@dataclass(frozen=True)
class SizeInBytes(Allowed):
    """Bytes, or a text such as "1GB"."""

    written = "SIZE"

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError(f"{name} must be bytes or a text such as '1GB'; got {value!r}.")
        try:
            n_bytes = parse_bytes(value)
        except (ValueError, OverflowError):  # of an infinity
            raise ValueError(f"{name} must be bytes or a text such as '1GB'; got {value!r}.") from None
        if not n_bytes > 0:
            raise ValueError(f"{name} must be positive; got {value!r}.")

    def read(self, text: str) -> int:
        try:
            return int(parse_bytes(text))
        except ValueError:
            raise ValueError(f"{text!r} is not a size such as 500MB or 1GB") from None


@dataclass(frozen=True)
class WordOrObject(Allowed):
    """A word, or an object that describes a Sigma; a command line has a word for each kind of these too."""

    known: tuple[str, ...]

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Described):
            one_of(name, value, self.known)

    @property
    def words(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.known, *DESCRIBED)


@dataclass(frozen=True)
class NumberByName(Number):
    """A finite number of at least `least`, or one for each of some names: a mapping or a Series."""

    form = "values"
    written = "PENALTY"

    def check(self, name: str, value: Any) -> None:
        if not _is_by_name(value):
            number(name, value, least=self.least, strict=self.strict, wanted="a number or a mapping from names to them")
            return
        for key, each in dict(value).items():
            number(f"{name}[{key!r}]", each, least=self.least, strict=self.strict)

    def read(self, text: str) -> Any:
        key, equals, value = text.rpartition("=")
        return {key: super().read(value)} if equals else super().read(text)

    def together(self, values: list[Any]) -> Any:
        if len(values) == 1:
            return values[0]
        if not all(map(_is_by_name, values)):
            raise ValueError("--lam-b takes one number, or NAME=NUMBER as often as there are names; got both or two.")
        return {key: each for value in values for key, each in value.items()}

    def plain(self, value: Any) -> Any:
        if not _is_by_name(value):
            return super().plain(value)
        return {key: super(NumberByName, self).plain(each) for key, each in dict(value).items()}


def _is_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) or (hasattr(value, "items") and hasattr(value, "index"))  # a Series


@dataclass(frozen=True)
class Hypotheses(Allowed):
    """What `read_hypotheses` takes: whether it names coefficients that there are is known with the system."""

    form = "values"
    written = "RESTRICTION"

    def check(self, name: str, value: Any) -> None:
        if not (isinstance(value, str | Mapping | Sequence | Restrictions) or hasattr(value, "__array__")):
            raise TypeError(
                f"{name} must be texts such as 'a:x = b:x', a pair (R, r) or a mapping from texts to values; "
                f"got {value!r}."
            )


def option(*, default: Any, allowed: Allowed, help: str, flag: str = "", kw_only: bool = True) -> Any:
    """A field of `EstimatorOptions`. An option whose default is None may be None, which leaves it to the program.

    help : what it does, for the docstring of the estimator and the command line.  flag : the command line's name for
    it, without dashes, where that is not the option's.
    """
    return field(default=default, kw_only=kw_only, metadata={"allowed": allowed, "help": help, "flag": flag})


@dataclass(frozen=True)
class Option:
    """One line of the table: name, default, what is allowed, help, and its name on the command line."""

    name: str
    default: Any
    allowed: Allowed
    help: str
    flag: str

    def check(self, value: Any) -> None:
        """Raise TypeError or ValueError, naming the option, what it may be and the value."""
        if value is not None or self.default is not None:
            self.allowed.check(self.name, value)

    def plain(self, value: Any) -> Any:
        """An allowed value as records of a fit hold it."""
        return None if value is None else self.allowed.plain(value)


@dataclass_transform(kw_only_default=True, field_specifiers=(option,), eq_default=False)
def estimator(cls: type[T]) -> type[T]:
    """The class with a constructor that takes its options by name, and their help in its docstring at `{options}`."""
    made = dataclass(eq=False, repr=False, kw_only=True)(cls)
    indent, width = " " * 4, 120
    texts = [
        textwrap.fill(
            f"{each.name} : {each.metadata['help']}",
            width,
            initial_indent=indent,
            subsequent_indent=2 * indent,
            break_on_hyphens=False,
        )
        for each in fields(made)  # type: ignore[arg-type]
    ]
    made.__doc__ = (made.__doc__ or "").replace(f"{indent}{{options}}", "\n".join(texts))  # none with python -OO
    return made


@estimator
class EstimatorOptions:
    """The options of `LowRankGLS`, checked when they are set, read and changed as scikit-learn's estimators'.

    A new option is a field here, and a line where it acts.
    """

    rank: Rank = option(
        default="auto",
        kw_only=False,
        allowed=FactorsOrWay(("auto", *CHOSEN)),
        help="number of factors k. An integer (0 makes Sigma diagonal, the only choice for one or two equations), "
        '"auto" for min(8, ceil(K / 10)), "bic" for the least BIC over 1..min(K // 2, 12), "cv" for the smallest over '
        "the same whose likelihood of rows left out is within one standard error of the best; by the eigenvalues of "
        'OLS residuals alone "parallel", deterministic parallel analysis, which counts those above what noise has, '
        'and "eigenvalue-ratio", where neighbours differ most, both over 0..min(K // 2, 12); all at most what K '
        "identifies. A FitWarning says where the best is the most that was tried.",
    )
    covariance: Covariance | Described = option(
        default="lowrank",
        allowed=WordOrObject(get_args(Covariance)),
        help='"lowrank", Sigma = F F\' + diag(d); "full", any Sigma, the classical model, which needs many more rows '
        'than equations; "diagonal", every equation by itself. `rank` is only for the first. Or an object that says '
        f"more of Sigma, see their docstrings: {', '.join(f'`{each.__name__}`' for each in DESCRIBED.values())}. With "
        "`TimeVarying` the `result_` is a `TimeVaryingFit`.",
    )
    ranks: Sequence[int] | None = option(
        default=None,
        allowed=NumbersOfFactors(),
        help='the numbers of factors that rank="bic" and others choose from, such as [0, 2, 4]; 0 is a diagonal Sigma. '
        'With rank="auto" the least BIC chooses too. None: those named under `rank`.',
    )
    improper: Improper = option(
        default="warn",
        allowed=OneOf(get_args(Improper)),
        help='what is done with numbers of factors for which an own variance ends on its floor, a Heywood case: "warn" '
        'of them, or "avoid" them where rank="bic" and the like choose: the best rank whose own variances are all '
        "positive. Streamed, where only the best is fitted, the next best is fitted too if that ends there; a plan "
        "says in how many passes.",
    )
    algorithm: Algorithm = option(
        default="als",
        allowed=OneOf(get_args(Algorithm)),
        help='"als", alternating a GLS step for the coefficients and a step for Sigma up to maximum likelihood; "em", '
        'expectation-maximisation, which ends at the same optimum and streamed is a pass a round; "fgls", feasible GLS '
        "in one step: Sigma from the OLS residuals, one GLS step, done. The Sigma reported is then the one that "
        "weighted, and the log-likelihood that of the reported coefficients and Sigma. With restrictions OLS keeps to "
        'them too, all squared residuals counted alike in the units of the data; "ols", these OLS coefficients '
        "themselves, Sigma from their residuals, and the covariance of all coefficients together from both, for joint "
        "tests across equations without GLS.",
    )
    debiased: bool | Divisor = option(
        default=False,
        allowed=FlagOrWord(get_args(Divisor)),
        help="find Sigma from S_ij N / sqrt((N - p_i)(N - p_j)) instead of the mean products S of residuals, as "
        'systemfit\'s "geomean"; "max" divides by N - max(p_i, p_j), "Theil" by N - p_i - p_j + tr(P_i P_j), P_j the '
        "projection on the regressors of an equation: both may leave no covariance, which is refused. Iterated, all "
        "end at a fixed point, not at the maximum of the likelihood.",
    )
    use: Use | None = option(
        default=None,
        allowed=OneOf(get_args(Use)),
        help='what p-values, intervals and joint tests refer to. "t": Student\'s t with N - p_j degrees of freedom, '
        'joint tests F; "normal": normal and chi2; "system-t": t and F with N K - P. None: t with N - p_j, joint tests '
        "chi2. Where errors are clustered, any t and F have G - 1, G the number of groups.",
    )
    restrictions: str | Sequence[str] | Mapping[Any, float] | Restrictions | tuple[Any, Any] | None = option(
        default=None,
        allowed=Hypotheses(),
        flag="restrict",
        help="linear restrictions R b = r that every estimate keeps to: texts over labels, such as "
        '"food:price + food:income = 1" or "a:x = b:x", or a pair (R, r), (m, P) and (m,), equation by equation. '
        "Those that tie equations together can give the likelihood several optima: a compressed system is fitted from "
        "several starts and the best kept; streamed, where each costs passes, from one, the best for independent "
        "errors.",
    )
    engine: Engine = option(
        default="auto",
        allowed=OneOf(get_args(Engine)),
        help='"compress" reads the data once into q + K + 1 equivalent rows, "stream" makes a pass for every quantity '
        'it needs and holds K^2 numbers, "auto" compresses where (q + K)^2 fits.',
    )
    sigma_step: SigmaStep = option(
        default="ml",
        allowed=OneOf(get_args(SigmaStep)),
        help='"ml", maximum likelihood factor analysis, or "pca", principal components with a line search.',
    )
    lam_F: float = option(
        default=0.0,
        allowed=Number(),
        help="penalty lam_F / 2 ||F||^2 per row, in standard units (each response by its OLS residual standard "
        "deviation), so free of the units of the data.",
    )
    lam_B: Ridge = option(
        default=0.0,
        allowed=NumberByName(),
        help="penalty lam_B / (2 N) ||b||^2 per row, a ridge in standard units: each response as for lam_F, each "
        "regressor by its standard deviation, or where its equation has no constant by its root mean square. A "
        "constant, a column that is one number in all rows that are used, is never penalised, so that the level of a "
        "response or a regressor changes the intercept alone. Or a mapping from names of regressors to values, written "
        "NAME=VALUE on a command line; those it does not name are not penalised. Where equations call columns of their "
        "own by one name, it stands for all of them, and 'name[equation]', as `regressors` lists them, for one. Of "
        "several constants in an equation one is left free, the first of those with the least value.",
    )
    d_floor: float = option(
        default=1e-8,
        allowed=Number(strict=True, share_of="each residual variance"),
        help="the least idiosyncratic variance, as a fraction of the equation's OLS residual variance.",
    )
    rel_tol: float | None = option(
        default=None,
        allowed=Number(strict=True),
        help="stop when a sweep lowers the objective by less than this fraction; 1e-10 on a compressed system, 1e-6 "
        "streamed, if None.",
    )
    max_sweeps: int | None = option(
        default=None,
        allowed=WholeNumber(1),
        help='the most sweeps, of algorithm="em" the most rounds; ending there is a warning, not an error. None: 50 '
        "sweeps, 2,000 where restrictions tie equations together on a compressed system; 500 rounds of EM, 10,000 with "
        'accelerate=False. Streamed, EM is also what algorithm="als" runs for '
        "rows that miss responses and where K x K sums do not fit.",
    )
    cg_tol: float | None = option(
        default=None,
        allowed=Number(strict=True),
        help="relative residual of the conjugate gradients of a GLS step. None chooses a tolerance far below the "
        "statistical error of the coefficients.",
    )
    cg_maxit: int = option(
        default=CG_MAXIT,
        allowed=WholeNumber(1),
        help="the most iterations of the conjugate gradients of a GLS step.",
    )
    n_folds: int = option(
        default=5,
        allowed=WholeNumber(2),
        help='for rank="cv", how many folds. All come from the one pass that compresses the data, which then holds '
        "n_folds times (q + K)^2 numbers.",
    )
    folds: FoldsOf = option(
        default="rows",
        allowed=OneOf(get_args(FoldsOf)),
        help='for rank="cv", of which rows: "rows", each row\'s fold drawn by a hash of its number, or "blocks", '
        "consecutive rows, whose labels must ascend if they have any, for data that depend on each other over time.",
    )
    accelerate: bool = option(
        default=True,
        allowed=Flag(),
        flag="no-accelerate",
        help='False is the textbook iteration of algorithm="em", which takes many times the rounds.',
    )
    missing: Missing = option(
        default="raise",
        allowed=OneOf(get_args(Missing)),
        help='"raise" refuses NaN in Y. "em" maximises the likelihood of what each row shows, which is right where '
        "values are missing at random; a regressor may be NaN where no observed response of its row uses it. Rows that "
        "show the same equations are compressed together where there are few such patterns, so that one pass is "
        'enough; else every sweep is one. "drop" leaves out rows that miss a response or a regressor.',
    )
    unusable: Unusable = option(
        default="raise",
        allowed=OneOf(get_args(Unusable)),
        help='"raise" refuses equations that cannot be estimated: without an observed response, in no more rows than '
        'they have regressors, or with collinear ones. "skip" leaves these out, and those whose response is a constant '
        "that their regressors reproduce, with the columns that they alone use, and fits the others as if they were "
        "all; results have NaN for them, and `fit.status` says why. One pass over Y before all others finds them, but "
        "for collinear ones, after whose first pass the others' is made anew. Columns that are collinear in every "
        "equation are refused. Only the others must be complete with `missing` at its default.",
    )
    checkpoint: str | os.PathLike[str] | None = option(
        default=None,
        allowed=Place(),
        help="a path or URL where a long fit keeps its progress. A fit of the same data that finds one there goes on "
        "from it; it is deleted when the fit is complete. The data must not have changed in between. With "
        'missing="em" the first pass is made again, and rounds go on where they were.',
    )
    progress: bool | Callable[[str, int, int], object] = option(
        default=False,
        allowed=FlagOrCall(),
        help="True for a bar on stderr, or a callable (label, bytes_done, bytes_total).",
    )
    memory_limit: int | str | None = option(
        default=None,
        allowed=SizeInBytes(),
        help='bytes, or text like "1GB", that one process may use; found out if None.',
    )

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Raise TypeError or ValueError for an option that is not what it may be, or does not go with another."""
        settings = self.get_params()
        for each in OPTIONS.values():
            each.check(settings[each.name])
        defaults = {name: each.default for name, each in OPTIONS.items()}
        for rule in (*rules_of(self.covariance), *RULES):
            rule.check(settings, defaults)
        check_improper(settings)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in OPTIONS}

    def set_params(self, **params: Any) -> Self:
        """Change arguments by name; returns self."""
        unknown = sorted(set(params) - set(OPTIONS))
        if unknown:
            raise ValueError(f"unknown parameter {unknown[0]!r}; the parameters are {', '.join(OPTIONS)}.")
        before = self.get_params()
        vars(self).update(params)
        try:
            self._check()
        except (TypeError, ValueError):
            vars(self).update(before)
            raise
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, which asks, is told: `fit` takes a System, not arrays, so that no search or pipeline of
        its own can fit this estimator; `clone`, `get_params` and `set_params` are as it has them."""
        from sklearn.utils import InputTags, Tags, TargetTags  # there, since it asks

        takes = InputTags(two_d_array=False, allow_nan=self.missing != "raise")
        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=takes)

    def given_to(self, record: type) -> dict[str, Any]:
        """The options that are fields of a dataclass, by name."""
        named = [OPTIONS[each.name] for each in fields(record) if each.name in OPTIONS]
        return {each.name: each.plain(getattr(self, each.name)) for each in named}

    def __repr__(self) -> str:
        given = self.get_params().items()
        changed = [f"{name}={value!r}" for name, value in given if np.any(value != OPTIONS[name].default)]
        return f"{type(self).__name__}({', '.join(changed)})"


OPTIONS: dict[str, Option] = {
    each.name: Option(each.name, each.default, **each.metadata) for each in fields(EstimatorOptions)
}
