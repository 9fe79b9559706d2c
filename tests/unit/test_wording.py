from surefoot.wording import counted, cut


def test_nouns_follow_their_number() -> None:
    assert [counted(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_only_what_is_too_long_is_cut() -> None:
    assert cut("four", 4) == "four"
    assert cut("fives", 4) == "five…"
