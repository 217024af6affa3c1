"""Evaluation queries: the final scores of base models and trials, with their examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby

from sqlalchemy import ColumnElement, delete, select

from sweeper.retry import retried_methods
from sweeper.store.records import Evaluation, Example, ScoreRecord
from sweeper.store.rows import Queries, changed_study, columns, study_id, trial_row
from sweeper.store.tables import EvaluationRow, ExampleRow


@retried_methods()
class Evaluations(Queries):
    """The evaluations of a database, by study, subject (a trial's number, or None for a base model) and split.

    A study with several base models has an evaluation of each, told apart by name.
    """

    def add(self, study: str, evaluation: Evaluation, examples: Iterable[Example] = ()) -> None:
        """Store all scores of one subject on one split, with examples; earlier ones are replaced.

        Raises:
            StudyStateError: If study or trial do not exist.
        """
        number, split, base = evaluation.number, evaluation.split, evaluation.base
        with self._transactions.writing(study) as session:
            key, _ = changed_study(session, study)
            if number is not None:
                trial_row(session, study, number)
            for table in (EvaluationRow, ExampleRow):
                session.execute(delete(table).where(table.study_id == key, *_subject(table, number, split, base)))
            common = {"study_id": key, "number": number, "split": split, "base": base}
            session.add_all(EvaluationRow(**common, **asdict(score)) for score in evaluation.scores)
            session.add_all(ExampleRow(**common, **asdict(example)) for example in examples)

    def all(self, study: str) -> tuple[Evaluation, ...]:
        """Return the evaluations of a study in the order they were stored."""
        subject = EvaluationRow.number, EvaluationRow.split, EvaluationRow.base
        with self._transactions.reading() as session:
            query = select(*subject, *columns(EvaluationRow, ScoreRecord)).order_by(EvaluationRow.id)
            rows = session.execute(query.where(EvaluationRow.study_id == study_id(session, study))).all()
        return tuple(
            Evaluation(number, split, tuple(ScoreRecord(*row[3:]) for row in group), base)
            for (number, split, base), group in groupby(rows, key=lambda row: (row.number, row.split, row.base))
        )

    def examples(self, study: str, number: int | None, split: str, base: str = "") -> tuple[Example, ...]:
        """Return the stored examples of one subject on one split, by index; ``base`` tells several bases apart."""
        subject = _subject(ExampleRow, number, split, base)
        return self._fetch(Example, ExampleRow, *subject, study=study, order_by=[ExampleRow.index])


def _subject(
    table: type[EvaluationRow] | type[ExampleRow], number: int | None, split: str, base: str
) -> list[ColumnElement[bool]]:
    found = [table.number.is_not_distinct_from(number), table.split == split]
    return [*found, table.base == base] if number is None else found
