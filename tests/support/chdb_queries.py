"""Statements and queries in chdb, which is ClickHouse in a process. For the python of tools/chdb.sh, which is apart from the
tests' own. Standard input is {"statements": [...], "queries": [...]}, standard output a list with each query's answer, as
ClickHouse's format JSON has it, or {"error": "..."}."""

import json
import sys

from chdb.session import Session


def answer(session: Session, query: str) -> object:
    """A query's answer; its error is an answer too."""
    try:
        return json.loads(session.query(query, "JSON").bytes())
    except Exception as error:  # noqa: BLE001 chdb raises whatever it likes
        return {"error": f"{query}\n{error}"}


def main() -> None:
    """Statements must succeed; queries are answered one by one."""
    asked = json.load(sys.stdin)
    session = Session()
    for statement in asked["statements"]:
        session.query(statement)
    json.dump([answer(session, query) for query in asked["queries"]], sys.stdout)


if __name__ == "__main__":
    main()
