"""scikit-learn's own checks of estimators: which cannot apply to one that is fitted to a System, and why."""

from __future__ import annotations

from typing import Any

import pytest

from lrgls_dask import LowRankGLS

checks = pytest.importorskip("sklearn.utils.estimator_checks")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Estimator .* does not inherit from"),  # which this package works without
    pytest.mark.filterwarnings("ignore:Can.t test estimator"),
    pytest.mark.filterwarnings("ignore:.* occurred during set_params"),
]

ROWS = "fits (X, y) as arrays; fit takes a System, which holds responses, regressors and labels, and says so"
CANNOT_APPLY = dict.fromkeys(
    (
        "check_complex_data",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimator_sparse_array",
        "check_estimator_sparse_matrix",
        "check_estimator_sparse_tag",
        "check_estimators_dtypes",
        "check_estimators_empty_data_messages",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit1d",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
    ),
    ROWS,
)
CANNOT_APPLY |= {
    "check_do_not_raise_errors_in_init_or_set_params": "a wrong option is refused where it is written, not by fit",
    "check_estimators_unfitted": "asks for scikit-learn's own NotFittedError; what is raised is an "
    "AttributeError and a ValueError, as that is",
}


class AsIfOfArrays(LowRankGLS):
    """The estimator, if it said that it takes arrays: then every check is made."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_as_what_it_says_it_is_nothing_fails() -> None:
    made = checks.check_estimator(LowRankGLS(), on_skip=None)
    assert made and all(each["status"] == "passed" for each in made)


def test_the_checks_that_fail_are_those_that_cannot_apply() -> None:
    made = checks.check_estimator(AsIfOfArrays(), on_fail=None, on_skip=None, expected_failed_checks=CANNOT_APPLY)
    by_status: dict[str, set[str]] = {}
    for each in made:
        by_status.setdefault(each["status"], set()).add(each["check_name"])
    assert by_status.get("failed", set()) == set()
    assert by_status["xfail"] <= set(CANNOT_APPLY)
    assert by_status["passed"] & set(CANNOT_APPLY) == set()
    assert {"check_estimator_cloneable", "check_set_params", "check_get_params_invariance"} <= by_status["passed"]


def test_it_is_told_apart_from_estimators_of_arrays() -> None:
    tags = LowRankGLS(missing="em").__sklearn_tags__()
    assert tags.estimator_type is None and not tags.input_tags.two_d_array and tags.input_tags.allow_nan
    assert not LowRankGLS().__sklearn_tags__().input_tags.allow_nan
