"""AgentOS as its documentation puts it into production: Postgres, the durable queue, Redis between the replicas."""
import os

from agno.agent import Agent
from agno.db.postgres import PostgresDb
from agno.models.openai import OpenAIChat
from agno.os import AgentOS, QueueConfig


def calculator(expression: str) -> str:
    """Evaluates an arithmetic expression."""
    return "42"


db = PostgresDb(db_url=os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg://", 1))
agent = Agent(
    id="bench",
    model=OpenAIChat(id="bench", base_url=os.environ["OPENAI_BASE_URL"], api_key="sk-bench"),
    db=db,
    tools=[calculator],
    telemetry=False,
)
# Without more attempts than its default of one, a run whose process died is failed and never done again. The other bounds are raised
# so that they do not decide what is measured (by default 32 runs at once and 1,000 that wait).
queue = QueueConfig(durable=True, max_attempts=3, max_concurrency=500, max_queue_depth=100_000, redis=os.environ["REDIS_URL"])
app = AgentOS(agents=[agent], db=db, queue=queue, telemetry=False).get_app()
