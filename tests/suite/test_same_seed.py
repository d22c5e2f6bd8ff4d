"""The suite again, from the same seed."""


def test_the_same_seed_gives_the_same_tables_and_figures(run_suite, request, tmp_path):
    again = tmp_path / "again"
    run_suite(again)
    # Only now, since other tests may be making it meanwhile.
    run = request.getfixturevalue("run")
    for folder in ("figures", "tables"):
        assert {path.name for path in (again / folder).iterdir()} == {
            path.name for path in (run / folder).iterdir()
        }
        for path in (run / folder).iterdir():
            assert (again / folder / path.name).read_bytes() == path.read_bytes(), path.name
