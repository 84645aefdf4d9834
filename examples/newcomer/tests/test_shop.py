from shop import host


def test_host() -> None:
    assert host("bücher.example") == "xn--bcher-kva.example"
