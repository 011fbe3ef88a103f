# SPDX-License-Identifier: Apache-2.0
"""The runner of pages sees what is wrong."""

import pages
import pytest

OUTPUT = "name  status\np1    UP\n\np2    DOWN\n"
PAGE = """
```console
$ for i in 1 2; do
>   echo $i
> done
1
2
$ false        # refused
```

```sh
$ never
```

```python a/b.py
x = 1
```
"""


@pytest.mark.parametrize("expected", [[], ["name status", "p1 UP"], ["...", "p2 DOWN"], ["p1 ...", "..."], ["name ...", "...", "p2 D...N"]])
def test_what_comes_is_found(expected: list[str]) -> None:
    assert pages.first_missing(expected, OUTPUT) is None


@pytest.mark.parametrize("expected", [["p3"], ["name status", "p2 DOWN"], ["p2 DOWN", "p1 UP"], ["p1 UP", "p1 UP"], ["status"]])
def test_what_does_not_come_is_missed(expected: list[str]) -> None:
    assert pages.first_missing(expected, OUTPUT) is not None


def test_a_page_is_read() -> None:
    files, commands = pages.parse(PAGE)
    assert files == {"a/b.py": "x = 1\n"}
    assert [command.text for command in commands] == ["for i in 1 2; do\n  echo $i\ndone", "false        # refused"]
    assert [command.output for command in commands] == [["1", "2"], []]
    assert [command.refused for command in commands] == [False, True]
