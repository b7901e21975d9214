"""What a client encodes, the host binds to the same arguments as Python would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeactor import CodecError
from kubeactor.arguments import Arguments
from kubeactor.call import JSON

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Till:
    async def put(self, first: Any, /, second: Any = 2, *, third: Any = 3) -> None: ...
    async def rest(self, *values: Any) -> None: ...
    async def named(self, **values: Any) -> None: ...


put, rest, named = (Arguments(each, each.__qualname__) for each in (Till.put, Till.rest, Till.named))


@given(values, values, values)
def test_every_way_to_give_arguments_binds_the_same(first: Any, second: Any, third: Any) -> None:
    for args, kwargs in [
        ((first, second), {"third": third}),
        ((first,), {"third": third, "second": second}),
    ]:
        assert put.decode(put.encode(args, kwargs, JSON), JSON) == ((first, second), {"third": third})
    args, kwargs = put.decode(put.encode((first,), {}, JSON), JSON)
    assert (args, {"third": 3} | kwargs) == ((first, 2), {"third": 3})


@given(st.lists(values, max_size=4))
def test_any_number_by_position(given_values: list[Any]) -> None:
    assert rest.decode(rest.encode(given_values, {}, JSON), JSON) == (tuple(given_values), {})


@given(st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda name: name != "self"), values, max_size=4))
def test_any_number_by_name(given_values: dict[str, Any]) -> None:
    assert named.decode(named.encode((), given_values, JSON), JSON) == ((), given_values)


@pytest.mark.parametrize("value", [float("nan"), object(), {(1, 2): 3}, 1j])
def test_what_has_no_form_in_json_is_named(value: object) -> None:
    with pytest.raises(CodecError, match=r"Till.put, second: \$"):
        put.encode((1, value), {}, JSON)


def test_no_arguments_are_an_empty_body() -> None:
    assert rest.encode((), {}, JSON) == b""
