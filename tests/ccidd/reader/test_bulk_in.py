# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from ccidd.reader.bulk_in import BulkIn, Piece


def test_a_message_is_read_in_pieces_and_never_with_another() -> None:
    endpoint = BulkIn()
    endpoint.put(b"abcde")
    endpoint.put(b"fg")
    assert endpoint.take(3) == Piece(0, b"abc", ends=False)
    assert endpoint.take(64) == Piece(3, b"de")
    assert endpoint.take(64) == Piece(5, b"fg")
    assert endpoint.take(64) is None


def test_pieces_of_a_message_that_come_back_are_one_message_again() -> None:
    endpoint = BulkIn()
    endpoint.put(b"abcdefgh")
    endpoint.put(b"ij")
    pieces = [piece for _ in range(3) if (piece := endpoint.take(3)) is not None]
    for piece in reversed(pieces[1:]):
        endpoint.give_back(piece)
    answer = endpoint.take(64)
    assert answer is not None
    assert answer.data == b"defgh"
    assert answer.ends


def test_what_comes_back_after_a_reset_is_forgotten() -> None:
    endpoint = BulkIn()
    endpoint.put(b"abc")
    piece = endpoint.take(2)
    assert piece is not None
    endpoint.clear()
    endpoint.give_back(piece)
    endpoint.put(b"new")
    after = endpoint.take(64)
    assert after is not None
    assert after.data == b"new"


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=60),
    st.data(),
)
def test_whatever_is_given_back_the_host_gets_each_message_whole_and_in_order(
    messages: list[bytes], reads: list[tuple[int, bool]], data: st.DataObject
) -> None:
    endpoint = BulkIn()
    for message in messages:
        endpoint.put(message)
    seen: dict[int, bytes] = {}
    lost: list[Piece] = []
    for size, arrives in reads:
        piece = endpoint.take(size)
        if piece is None:
            break
        if arrives and not lost:
            seen[piece.position] = piece.data
        else:
            # Cancels come one after the other, in any order, for all that was under way.
            lost.append(piece)
    for piece in data.draw(st.permutations(lost)):
        endpoint.give_back(piece)
    received = b"".join(seen.values())
    rest = []
    while (piece := endpoint.take(1000)) is not None:
        assert piece.ends
        rest.append(piece.data)
    assert received + b"".join(rest) == b"".join(messages)
    # Each piece but the first, which goes on where the host was, is a whole message.
    assert rest[1:] == messages[len(messages) - len(rest) + 1 :] if rest else True
