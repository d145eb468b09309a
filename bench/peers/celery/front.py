"""What stands in front of Celery: accepts a run and answers with its id."""
from fastapi import FastAPI
from pydantic import BaseModel

from tasks import run

app = FastAPI()


class Input(BaseModel):
    id: str
    message: str


@app.get("/health")
def health():
    return "ok"


# Not async: delay() blocks.
@app.post("/runs")
def start(input: Input):
    run.apply_async(args=[input.message], task_id=input.id)
    return {"id": input.id}
