"""The SDS door over real gRPC: both kinds of conversation, who is let in, and what is left behind."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from authz._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from authz.core.route import EgressRoute
from authz.doors.envoy.conversation import MAX_NAMES
from authz.doors.envoy.grpc_server import GrpcServer, ServerSettings
from authz.doors.envoy.sds import SERVICE, SecretDiscovery
from support.fakes.pushed import REFRESH, PushedScene, policy, route
from support.fakes.recorder import Recorder
from support.programs.stack import until
from support.proxy.secret_stream import SecretStream

ONE, TWO, THREE = ("Bearer issued-1", "Bearer issued-2", "Bearer issued-3")


class Door(PushedScene):
    """A running server with pushed tokens behind it."""

    def __init__(
        self, folder: Path, *routes: EgressRoute, tcp: bool = False, **settings: Any
    ) -> None:
        super().__init__(*routes)
        self.counts = Recorder()
        self.secrets = SecretDiscovery(
            self.pushed, self.counts, **{"peers_have_names": False, **settings}
        )
        self.address = "127.0.0.1:0" if tcp else f"unix:{folder}/sds.sock"
        self.server = GrpcServer(ServerSettings(self.address), [self.secrets.handler()])

    def stream(self, *, delta: bool = False) -> SecretStream:
        """Open a stream."""
        return SecretStream(self.address, delta=delta)

    @property
    def left(self) -> tuple[int, int]:
        """How many streams and subscriptions there are."""
        return self.secrets.streams(), self.pushed.subscribers()


Open = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Start servers; stopped after the test, which must have left nothing behind."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-")))

        @asynccontextmanager
        async def running(*routes: EgressRoute, **settings: Any) -> AsyncIterator[Door]:
            door = Door(folder, *routes, **settings)
            await door.server.start()
            if settings.get("tcp"):
                door.address = f"127.0.0.1:{door.server.port}"
            try:
                yield door
                await until(lambda: door.left == (0, 0))
                assert {} == door.pushed.status()
            finally:
                await door.server.stop()
                await door.pushed.close()

        yield running


async def test_first_request_is_answered_and_an_acknowledgement_is_not(opened: Open) -> None:
    """Silence after an ACK, until the token changes; then a new version and a new nonce."""
    async with opened() as door, door.stream() as envoy:
        await envoy.ask("api")
        assert {"api": ONE} == await envoy.hear()
        first = envoy.last
        await envoy.acknowledge("api")
        await door.alarm.forward(REFRESH)

        # Had the ACK been answered, this would be the first token again.
        assert {"api": TWO} == await envoy.hear()
        assert first.nonce != envoy.last.nonce
        assert first.version_info != envoy.last.version_info
        assert [("api", False)] * 2 == door.counts.sent


async def test_versions_of_two_processes_differ(opened: Open) -> None:
    """After a restart nothing looks like what was there before."""
    versions = []
    for _ in range(2):
        async with opened() as door, door.stream() as envoy:
            await envoy.ask("api")
            await envoy.hear()
            versions.append(envoy.last.version_info)

    assert 2 == len(set(versions))


async def test_reconnected_envoy_is_told_again(opened: Open) -> None:
    """Its first request names the version, and may name the nonce, of a stream that is gone."""
    async with opened() as door:
        async with door.stream() as envoy:
            await envoy.ask("api")
            await envoy.hear()
            before = envoy.last
        async with door.stream() as envoy:
            await envoy.ask("api", version_info=before.version_info, nonce=before.nonce)

            assert {"api": ONE} == await envoy.hear()
        assert 1 == len(door.entra.calls)


async def test_other_names_are_answered_and_dropped_ones_end(opened: Open) -> None:
    """A request with the nonce of the last answer is an ACK and may want something else as well."""
    async with opened(route("a"), route("b"), route("c")) as door, door.stream() as envoy:
        await envoy.ask("a", "a")
        assert {"a": ONE} == await envoy.hear()
        await envoy.acknowledge("a", "b")
        assert {"a": ONE, "b": ONE} == await envoy.hear()
        await envoy.acknowledge("b")
        await until(lambda: ["b"] == list(door.pushed.status()))
        await envoy.acknowledge("c")

        assert {"c": ONE} == await envoy.hear()
        assert ["c"] == list(door.pushed.status())


async def test_rejected_version_is_not_sent_again_and_the_next_one_is(opened: Open) -> None:
    """A NACK is counted for what was refused, and logged without any chance of a token in it."""
    async with opened() as door, door.stream() as envoy:
        await envoy.ask("api")
        await envoy.hear()
        with capture_logs() as logs:
            await envoy.acknowledge("api", error="bad: Bearer issued-1 eyJhbGciOiJub25lIn0.e30.x!")
            await until(lambda: door.counts.rejected)
        await door.alarm.forward(REFRESH)

        assert {"api": TWO} == await envoy.hear()
        assert ["api"] == door.counts.rejected
        (record,) = logs
        assert "bad: Bearer *** ***!" == record["cause"]
        assert ("envoy rejected secrets", ["api"]) == (record["event"], record["secrets"])


async def test_stale_nonce_is_ignored(opened: Open) -> None:
    """It speaks of an answer that is no longer the last; so it neither wants nor refuses anything."""
    async with opened(route("a"), route("b")) as door, door.stream() as envoy:
        await envoy.ask("a")
        await envoy.hear()
        old = envoy.last.nonce
        await door.alarm.forward(REFRESH)
        await envoy.hear()
        await envoy.ask("b", nonce=old, error="too late")
        await envoy.acknowledge("a", "b")

        assert {"a": TWO, "b": TWO} == await envoy.hear()
        assert [] == door.counts.rejected


@pytest.mark.parametrize("delta", [False, True])
async def test_refused_names_have_the_empty_value_and_are_told_once(
    opened: Open, delta: bool
) -> None:
    """Envoy goes on, closed where it must be; the log says why, once a stream; no label is made up."""
    found = (route("api"), route("kept", push=False))
    async with opened(*found) as door, door.stream(delta=delta) as envoy:
        names = ("api", "kept", "nowhere")
        with capture_logs() as logs:
            await (envoy.change(names) if delta else envoy.ask(*names))
            answer = await envoy.hear()
            if "api" not in answer:
                answer |= await envoy.hear()
            await door.alarm.forward(REFRESH)
            await envoy.hear()

        assert {"api": ONE, "kept": "", "nowhere": ""} == answer
        refusals = [record for record in logs if record["event"] == "secret refused"]
        assert ["kept", "nowhere"] == [record["secret"] for record in refusals]
        assert "no egress route has this name" == refusals[1]["cause"]
        assert {("api", False), ("kept", True), (None, True)} == set(door.counts.sent)


@pytest.mark.parametrize("delta", [False, True])
async def test_new_configuration_reaches_every_stream_at_once(opened: Open, delta: bool) -> None:
    """What it does not grant any more is replaced by the empty value."""
    async with opened() as door, door.stream(delta=delta) as envoy:
        await (envoy.change(("api",)) if delta else envoy.ask("api"))
        assert {"api": ONE} == await envoy.hear()
        door.pushed.swap(policy(version="v2"), door.tokens)

        assert {"api": ""} == await envoy.hear()


async def test_delta_says_what_changed_and_nothing_else(opened: Open) -> None:
    """Subscribe, acknowledge, subscribe to more, unsubscribe, subscribe again."""
    async with opened(route("a"), route("b")) as door, door.stream(delta=True) as envoy:
        await envoy.change(("a",))
        assert {"a": ONE} == await envoy.hear()
        await envoy.change(nonce=envoy.last.nonce)
        await envoy.change(("b",))
        assert {"b": ONE} == await envoy.hear()
        await envoy.change(unsubscribe=("b",))
        await until(lambda: ["a"] == list(door.pushed.status()))
        await envoy.change(("a",))

        assert {"a": ONE} == await envoy.hear()
        (resource,) = envoy.last.resources
        assert "a" == resource.name


async def test_delta_tells_of_a_name_again_that_is_asked_for_again(opened: Open) -> None:
    """What is not wanted any more is forgotten with all that was noted of it."""
    async with opened(route("a")) as door, door.stream(delta=True) as envoy:
        with capture_logs() as logs:
            for _ in range(2):
                await envoy.change(("nowhere",))
                assert {"nowhere": ""} == await envoy.hear()
                await envoy.change(unsubscribe=("nowhere",))

    refused = [record["secret"] for record in logs if record["event"] == "secret refused"]
    assert ["nowhere"] * 2 == refused


async def test_delta_does_not_repeat_what_a_reconnected_envoy_has(opened: Open) -> None:
    """It names the versions it has; a version of another process is none of ours."""
    async with opened(route("a"), route("b")) as door, door.stream(delta=True) as envoy:
        await envoy.change(("a",))
        await envoy.hear()
        (had,) = envoy.last.resources
        async with door.stream(delta=True) as back:
            await back.change(("a", "b"), had={"a": had.version, "b": "other-1"})

            assert {"b": ONE} == await back.hear()
            await door.alarm.forward(REFRESH)
            assert {"a": TWO, "b": TWO} == await back.hear()


async def test_delta_rejection_is_counted_for_what_was_refused(opened: Open) -> None:
    """And not repeated: the next version is sent, this one is not."""
    async with opened(route("a"), route("b")) as door, door.stream(delta=True) as envoy:
        await envoy.change(("a",))
        await envoy.hear()
        refused = envoy.last.nonce
        await envoy.change(("b",))
        await envoy.hear()
        await envoy.change(nonce=refused, error="no")
        await envoy.change(nonce=refused, error="the same again")
        await door.alarm.forward(REFRESH)

        assert {"a": TWO, "b": TWO} == await envoy.hear()
        assert ["a"] == door.counts.rejected


@pytest.mark.parametrize("delta", [False, True])
async def test_fifty_streams_at_once_cost_one_exchange(opened: Open, delta: bool) -> None:
    """Each gets the same token."""
    async with opened() as door:
        door.entra.hang()
        async with AsyncExitStack() as stack:
            envoys = [await stack.enter_async_context(door.stream(delta=delta)) for _ in range(50)]
            for envoy in envoys:
                await (envoy.change(("api",)) if delta else envoy.ask("api"))
            await until(lambda: door.left == (50, 50))
            door.entra.release()

            answers = await asyncio.gather(*(envoy.hear() for envoy in envoys))

        assert [{"api": ONE}] * 50 == answers
        assert 1 == len(door.entra.calls)


async def test_streams_end_in_every_way_and_leave_nothing(opened: Open) -> None:
    """Said so, cut off, or by a vanished connection; with a first answer pending as well."""
    async with opened(route("a"), route("b")) as door:
        async with door.stream() as polite, door.stream() as rude, door.stream() as pending:
            for envoy in (polite, rude):
                await envoy.ask("a")
                await envoy.hear()
            door.entra.hang()
            await pending.ask("b")
            await until(lambda: door.left == (3, 3))
            await polite.finish()
            assert (grpc.StatusCode.OK, "") == await polite.status()
            await until(lambda: door.left == (2, 2))
        await until(lambda: door.left == (0, 0))
        door.entra.release()


async def test_a_stopping_server_ends_its_streams(opened: Open) -> None:
    """They never end by themselves, so it does not wait for them."""
    async with opened() as door, door.stream() as envoy:
        await envoy.ask("api")
        await envoy.hear()
        async with asyncio.timeout(5):
            await door.server.stop()

        assert grpc.StatusCode.OK != (await envoy.status())[0]
        await until(lambda: door.left == (0, 0))


@pytest.mark.parametrize("delta", [False, True])
async def test_only_secrets_are_served(opened: Open, delta: bool) -> None:
    """Another type is refused by name; the type may be left out."""
    wrong = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    async with opened() as door, door.stream(delta=delta) as envoy:
        send = envoy.change if delta else envoy.ask
        names: Any = (("api",),) if delta else ("api",)
        await send(*names, type_url="")
        assert {"api": ONE} == await envoy.hear()
        await send(*names, type_url=wrong)
        code, said = await envoy.status()

        assert grpc.StatusCode.INVALID_ARGUMENT == code
        assert "expected type_url" in said


@pytest.mark.parametrize("delta", [False, True])
async def test_names_of_a_stream_are_bounded(opened: Open, delta: bool) -> None:
    """Together, however many requests they come in."""
    names = tuple(f"name-{number}" for number in range(MAX_NAMES + 1))
    async with opened() as door, door.stream(delta=delta) as envoy:
        first, second = names[:MAX_NAMES], names[MAX_NAMES:]
        await (envoy.change(first) if delta else envoy.ask(*first))
        assert MAX_NAMES == len(await envoy.hear())
        await (envoy.change(second) if delta else envoy.acknowledge(*names))

        assert grpc.StatusCode.RESOURCE_EXHAUSTED == (await envoy.status())[0]


async def test_streams_of_a_process_are_bounded(opened: Open) -> None:
    """One more is refused, and one that ends makes room."""
    async with opened(max_streams=1) as door:
        async with door.stream() as first:
            await first.ask("api")
            await first.hear()
            async with door.stream() as second:
                assert grpc.StatusCode.RESOURCE_EXHAUSTED == (await second.status())[0]
        await until(lambda: door.left == (0, 0))
        async with door.stream() as third:
            await third.ask("api")
            assert {"api": ONE} == await third.hear()


async def test_one_workload_of_several_leaves_streams_to_others(opened: Open) -> None:
    """Law 8: where workloads prove names, none of them may take all that there are."""
    async with opened(max_streams=8, peers_have_names=True) as door, AsyncExitStack() as open_ones:
        for _ in range(3):
            stream = await open_ones.enter_async_context(door.stream())
            await stream.ask("api")
            await stream.hear()
        async with door.stream() as one_more:
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == (await one_more.status())[0]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("delta", [False, True])
async def test_who_has_proved_nothing_is_refused(opened: Open, delta: bool, named: bool) -> None:
    """Law 2: plain TCP gets no secret, not even an empty one, and hears what to set."""
    async with opened(tcp=True, peers_have_names=named) as door:
        async with door.stream(delta=delta) as stranger:
            code, said = await stranger.status()

        assert grpc.StatusCode.PERMISSION_DENIED == code
        assert "listen.tls.client_ca_file" in said
        assert [] == door.entra.calls


async def test_single_fetches_are_not_served(opened: Open) -> None:
    """`FetchSecrets` has no one who would renew what it gave."""
    async with opened() as door, grpc.aio.insecure_channel(door.address) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/FetchSecrets",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call(DiscoveryRequest(resource_names=["api"]))

        assert grpc.StatusCode.UNIMPLEMENTED == refusal.value.code()
