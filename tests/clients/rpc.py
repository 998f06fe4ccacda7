"""gRPC without generated code: messages are bytes.

    rpc.py server                  prints `listening on ADDRESS`; ends with its standard input
    rpc.py client ADDRESS [CA]     calls everything in every way; with CA over TLS for shop.test
"""

import sys
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    assert "x-session" in metadata, metadata
    context.set_trailing_metadata((("x-told", "at the end"), ("x-told-bin", b"\x00\xff")))
    return b"unary " + request


def server_stream(request, _):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, _):
    return b"".join(requests)


def bidi(requests, _):
    for request in requests:
        yield b"echo " + request


def fail(_, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing \N{SNOWMAN}")


def fail_late(_, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "after one")


cancelled = threading.Event()


def slow(_, context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(30)
    cancelled.set()
    return b""


def was_cancelled(_, __):
    return b"yes" if cancelled.wait(20) and not cancelled.clear() else b"no"


def server():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    }
    listening = grpc.server(
        futures.ThreadPoolExecutor(16),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    listening.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    listening.stop(0)


def client(address, ca=None):
    options = [
        ("grpc.default_authority", "shop.test"),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if ca is None:
        channel = grpc.insecure_channel(address, options)
    else:
        options.append(("grpc.ssl_target_name_override", "shop.test"))
        with open(ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        channel = grpc.secure_channel(address, credentials, options)

    reply, call = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", timeout=20)
    assert reply == b"unary hello", reply
    assert call.code() == grpc.StatusCode.OK
    told = dict(call.trailing_metadata())
    assert (told["x-told"], told["x-told-bin"]) == ("at the end", b"\x00\xff"), told

    large = bytes(range(256)) * 16 * 1024
    assert channel.unary_unary("/test.Echo/Unary")(large, timeout=20) == b"unary " + large

    replies = list(channel.unary_stream("/test.Echo/ServerStream")(b"1000", timeout=20))
    assert replies == [b"%d" % number for number in range(1000)]

    requests = (b"%d," % number for number in range(1000))
    reply = channel.stream_unary("/test.Echo/ClientStream")(requests, timeout=20)
    assert reply == b"".join(b"%d," % number for number in range(1000))

    # Each answer is waited for before the next request: nothing is held back on the way.
    answered = threading.Semaphore(1)

    def turns():
        for number in range(20):
            answered.acquire()
            yield b"%d" % number

    for number, reply in enumerate(channel.stream_stream("/test.Echo/Bidi")(turns(), timeout=20)):
        assert reply == b"echo %d" % number, reply
        answered.release()
    assert number == 19

    try:
        channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no such thing \N{SNOWMAN}", error
        assert dict(error.trailing_metadata())["x-why"] == "because"

    replies = channel.unary_stream("/test.Echo/FailLate")(b"", timeout=20)
    assert next(replies) == b"one"
    try:
        next(replies)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DATA_LOSS, error

    try:
        channel.unary_unary("/test.Echo/Missing")(b"", timeout=20)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

    begun = time.monotonic()
    try:
        channel.unary_unary("/test.Echo/Slow")(b"", timeout=0.5)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - begun < 10
    assert channel.unary_unary("/test.Echo/WasCancelled")(b"", timeout=25) == b"yes"

    call = channel.unary_unary("/test.Echo/Slow").future(b"", timeout=20)
    time.sleep(0.3)
    assert call.cancel()
    assert channel.unary_unary("/test.Echo/WasCancelled")(b"", timeout=25) == b"yes"

    # The channel is as good as before.
    assert channel.unary_unary("/test.Echo/Unary")(b"again", timeout=20) == b"unary again"
    print("all is well", flush=True)


if sys.argv[1] == "server":
    server()
else:
    client(*sys.argv[2:])
