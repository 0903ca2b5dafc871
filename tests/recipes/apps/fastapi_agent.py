"""An agent as a FastAPI application that calls its API in every way such applications do.

It knows nothing of tokens: no header of the request it serves is looked at. Where the API is, and through
which proxy, its environment tells.
"""

import asyncio
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import httpx
import requests
from fastapi import FastAPI

API_URL = os.environ["API_URL"]
TIMEOUT = 30

Job = tuple[str, "asyncio.Future[int]"]
ThreadJob = tuple[str, "Future[int]"]


class Clients:
    """Clients and workers that live as long as the application.

    Attributes:
        client: Connections to the API.
        session: The same with aiohttp.
        pool: Threads for calls that block.
        tasks: Work for a task that is there before any request.
        jobs: Work for a thread that is there before any request.
        late_tasks: Work for a task that the first request starts.
        late_jobs: Work for a thread that the first request starts.
    """

    def __init__(self, client: httpx.AsyncClient, session: aiohttp.ClientSession) -> None:
        self.client = client
        self.session = session
        self.pool = ThreadPoolExecutor(8)
        self.tasks: asyncio.Queue[Job] = asyncio.Queue()
        self.jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        self.late_tasks: asyncio.Queue[Job] = asyncio.Queue()
        self.late_worker: asyncio.Task[None] | None = None
        self.late_jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        self.late_thread: threading.Thread | None = None


clients: Clients


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the clients and start the workers."""
    global clients  # noqa: PLW0603 - the usual place for what an application shares
    limits = httpx.Limits(max_connections=50)
    async with (
        httpx.AsyncClient(timeout=TIMEOUT, limits=limits) as client,
        aiohttp.ClientSession(trust_env=True) as session,
    ):
        clients = Clients(client, session)
        worker = asyncio.create_task(work(clients.tasks))
        thread = threading.Thread(target=work_through, args=(clients.jobs,))
        thread.start()
        yield
        worker.cancel()
        if clients.late_worker is not None:
            clients.late_worker.cancel()
        clients.jobs.put(None)
        thread.join()
        if clients.late_thread is not None:
            clients.late_jobs.put(None)
            clients.late_thread.join()
        clients.pool.shutdown()


app = FastAPI(title="recipes", lifespan=lifespan)


async def fetch(item: str) -> int:
    """Call the API the asynchronous way."""
    return (await clients.client.get(f"{API_URL}/items/{item}")).status_code


def fetch_blocking(item: str) -> int:
    """Call the API the blocking way."""
    return requests.get(f"{API_URL}/items/{item}", timeout=TIMEOUT).status_code


async def work(jobs: asyncio.Queue[Job]) -> None:
    """Do what the queue says, until cancelled."""
    while True:
        item, done = await jobs.get()
        done.set_result(await fetch(item))


def work_through(jobs: queue.SimpleQueue[ThreadJob | None]) -> None:
    """Do what the queue says, until it says stop."""
    while (job := jobs.get()) is not None:
        item, done = job
        done.set_result(fetch_blocking(item))


@app.get("/healthz")
async def healthz() -> str:
    """Tell that the application runs."""
    return "ok"


@app.get("/await/{item}")
async def awaited(item: str) -> list[int]:
    """Await the call."""
    return [await fetch(item)]


@app.get("/gather/{item}")
async def gathered(item: str) -> list[int]:
    """Run two calls at the same time."""
    return list(await asyncio.gather(fetch(item), fetch(item)))


@app.get("/child-task/{item}")
async def child_task(item: str) -> list[int]:
    """Leave the call to a task of its own."""
    return [await asyncio.create_task(fetch(item))]


@app.get("/to-thread/{item}")
async def to_thread(item: str) -> list[int]:
    """Leave the call to asyncio's threads."""
    return [await asyncio.to_thread(fetch_blocking, item)]


@app.get("/thread-pool/{item}")
async def thread_pool(item: str) -> list[int]:
    """Leave the call to a pool of threads, which all requests share."""
    return [await asyncio.wrap_future(clients.pool.submit(fetch_blocking, item))]


@app.get("/new-thread/{item}")
async def new_thread(item: str) -> list[int]:
    """Start a thread for the call."""
    done: Future[int] = Future()
    threading.Thread(target=lambda: done.set_result(fetch_blocking(item))).start()
    return [await asyncio.wrap_future(done)]


@app.get("/sync-endpoint/{item}")
def sync_endpoint(item: str) -> list[int]:
    """Block: FastAPI runs this in a thread."""
    return [fetch_blocking(item)]


@app.get("/aiohttp/{item}")
async def with_aiohttp(item: str) -> list[int]:
    """Use another client library."""
    async with clients.session.get(f"{API_URL}/items/{item}") as answer:
        return [answer.status]


@app.get("/queue-task/{item}")
async def queue_task(item: str) -> list[int]:
    """Hand the call to a task that was there before."""
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await clients.tasks.put((item, done))
    return [await done]


@app.get("/queue-thread/{item}")
async def queue_thread(item: str) -> list[int]:
    """Hand the call to a thread that was there before."""
    done: Future[int] = Future()
    clients.jobs.put((item, done))
    return [await asyncio.wrap_future(done)]


@app.get("/late-task/{item}")
async def late_task(item: str) -> list[int]:
    """Hand the call to a task that the first of these requests starts."""
    if clients.late_worker is None:
        clients.late_worker = asyncio.create_task(work(clients.late_tasks))
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await clients.late_tasks.put((item, done))
    return [await done]


@app.get("/late-thread/{item}")
async def late_thread(item: str) -> list[int]:
    """Hand the call to a thread that the first of these requests starts."""
    if clients.late_thread is None:
        clients.late_thread = threading.Thread(target=work_through, args=(clients.late_jobs,))
        clients.late_thread.start()
    done: Future[int] = Future()
    clients.late_jobs.put((item, done))
    return [await asyncio.wrap_future(done)]


@app.get("/urllib/{item}")
def with_urllib(item: str) -> list[int]:
    """Use a client that nothing instruments."""
    try:
        with urllib.request.urlopen(f"{API_URL}/items/{item}", timeout=TIMEOUT) as answer:  # noqa: S310
            status: int = answer.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return [status]
