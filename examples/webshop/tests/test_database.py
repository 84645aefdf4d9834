from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.pool import StaticPool

from webshop.database import make_engine, migrate
from webshop.models import Base


def test_migrations_lead_to_the_models() -> None:
    engine = make_engine("sqlite://")
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == "0001"
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_constraints_have_the_same_names_either_way() -> None:
    migrated, created = make_engine("sqlite://"), make_engine("sqlite://")
    migrate(migrated)
    Base.metadata.create_all(created)
    for table in Base.metadata.tables:
        for kind in ("get_check_constraints", "get_foreign_keys", "get_unique_constraints"):
            names = [
                {constraint["name"] for constraint in getattr(inspect(engine), kind)(table)}
                for engine in (migrated, created)
            ]
            assert names[0] == names[1], (table, kind)
    migrated.dispose()
    created.dispose()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    migrate(engine)
    migrate(engine)
    assert set(Base.metadata.tables) < set(inspect(engine).get_table_names())
    engine.dispose()


def test_only_memory_databases_share_one_connection(tmp_path: Path) -> None:
    assert isinstance(make_engine("sqlite://").pool, StaticPool)
    assert isinstance(make_engine("sqlite:///:memory:").pool, StaticPool)
    assert not isinstance(make_engine(f"sqlite:///{tmp_path / 'shop.db'}").pool, StaticPool)
