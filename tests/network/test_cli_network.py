"""`baffle serve` and `baffle join` as people run them: their ends, their words, and what they refuse."""

from __future__ import annotations

import resource
import signal
import socket

import numpy as np
import pytest

pytest.importorskip("zenoh")

from network_processes import HOST


@pytest.fixture(scope="module")
def kit(exported, tmp_path_factory):
    """A model for clients without PyTorch, and samples: whose first of four numbers is largest."""
    folder = tmp_path_factory.mktemp("kit")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(90, 1, 4, 4)).astype(np.float32)
    np.savez(folder / "all.npz", x=inputs, y=inputs.reshape(90, 16)[:, :10].argmax(1), classes=10)
    for number in range(2):
        part = inputs[number::2]
        np.savez(folder / f"{number}.npz", x=part, y=part.reshape(len(part), 16)[:, :10].argmax(1))
    return exported("mlp").folder, folder


def serve(net, kit, *flags: object, keys: object = None, rounds: int = 200, process: dict | None = None):
    model, folder = kit
    return net.cli(
        *("serve", "--listen", net.place, "--keys", keys or net.authority.server(), "--out", net.out),
        *("--dataset", folder / "all.npz", "--model", model, "--clients", 2, "--rounds", rounds),
        *("--forwards", 60, "--batch", 4, "--no-report", "--linger", 5, *flags),
        **(process or {}),
    )


def join(net, kit, number: int, *flags: object, keys: object = None):
    model, folder = kit
    return net.cli(
        *("join", net.place, "--keys", keys or net.authority.client(number), "--state", net.folder / f"state-{number}"),
        *("--data", folder / f"{number}.npz", "--model", model, *flags),
    )


def test_a_run_from_the_command_line_ends_well_and_is_verified(net, kit) -> None:
    server, clients = serve(net, kit, rounds=20), [join(net, kit, 0), join(net, kit, 1)]
    log = server.ends()
    for client in clients:
        assert "the run is over after 20 rounds" in client.ends()
    assert "20 rounds" in net.cli("verify", net.out).ends()
    net.cli("replay", net.out).ends()
    assert "done" in net.cli("status", net.out).ends()
    assert "Traceback" not in log


def test_secure_sums_from_the_command_line(net, kit) -> None:
    server = serve(net, kit, "--secure", "masks", rounds=6)
    clients = [join(net, kit, number, "--secure-only", "--least-sum", 2) for number in range(2)]
    log = server.ends()
    for client in clients:
        said = client.ends()
        assert "secure sums of 2 clients, opened for 2 or more" in said
        assert "the run is over after 6 rounds" in said
    assert "6 rounds" in net.cli("verify", net.out).ends()
    net.cli("replay", net.out).ends()
    assert "(64 samples)" in log  # 45 are told as the next power of two
    assert "Traceback" not in log


def test_a_client_that_takes_part_in_secure_sums_alone_leaves_a_server_without(net, kit) -> None:
    serve(net, kit)
    first = join(net, kit, 0)
    first.says("joined as client 0")
    log = join(net, kit, 1, "--secure-only").ends(2)
    last = "baffle: error: a report in the open is asked for, and this client takes part in secure sums alone"
    assert log.splitlines()[-1] == last
    assert "Traceback" not in log


def test_the_smallest_sum_is_of_two(net, kit) -> None:
    in_words(join(net, kit, 0, "--least-sum", 1), "least-sum = 1", "must be 2 or more")


def test_a_server_and_a_client_that_are_told_to_end_do_and_go_on_where_they_were(net, kit) -> None:
    server, clients = serve(net, kit), [join(net, kit, 0), join(net, kit, 1)]
    net.until_round(20)
    clients[0].send(signal.SIGTERM)
    assert "Traceback" not in clients[0].ends(0, 5)
    server.send(signal.SIGTERM)
    assert "Traceback" not in server.ends(0, 5)
    done = net.rounds()
    assert 20 <= done < 200
    assert list((net.folder / "state-0").glob("*/*.safetensors"))
    clients[0], server = join(net, kit, 0), serve(net, kit)
    server.ends()
    for client in clients:
        assert "the run is over after 200 rounds" in client.ends()


def test_an_interrupt_says_how_to_go_on(net, kit) -> None:
    server, client = serve(net, kit), join(net, kit, 0)
    client.says("joined as client 0")
    client.send(signal.SIGINT)
    assert "stopped; the same command goes on" in client.ends(130, 5)
    server.send(signal.SIGINT)
    assert f"stopped; the same command goes on with {net.out}" in server.ends(130, 5)
    for machine in (server, client):
        assert "Traceback" not in machine.log


def test_of_two_processes_with_the_same_keys_the_second_takes_over(net, kit) -> None:
    serve(net, kit)
    first = join(net, kit, 0)
    first.says("joined as client 0")
    second = join(net, kit, 0, "--state", net.folder / "elsewhere")
    second.says("joined as client 0")
    log = first.ends(2, 10)
    assert "another process has joined as client 0 since" in log
    assert "Traceback" not in log
    assert second.process.poll() is None


def test_two_processes_do_not_share_a_folder(net, kit) -> None:
    serve(net, kit)
    join(net, kit, 0).says("joined as client 0")
    log = join(net, kit, 0).ends(2, 10)
    assert "is in use by another process" in log
    assert log.count("\n") == 1


def in_words(machine, *words: str) -> None:
    log = machine.ends(2, 15)
    assert log.count("\n") == 1, log
    assert log.startswith("baffle: error: ")
    for word in words:
        assert word in log


def test_keys_of_the_other_kind_are_refused(net, kit) -> None:
    in_words(serve(net, kit, keys=net.authority.client(0)), "has a client's keys, and a server's are needed")
    in_words(join(net, kit, 0, keys=net.authority.server()), "has a server's keys, and a client's are needed")


def test_addresses_that_can_not_be_served_are_refused(net, kit) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, net.port))
        taken.listen()
        in_words(serve(net, kit), net.place, "is in use by another program")
    in_words(serve(net, kit, "--listen", "192.0.2.7:7447"), "is not an address of this machine")
    in_words(serve(net, kit, "--listen", "nowhere"), "must be HOST:PORT")
    in_words(net.cli("join", "nowhere", "--keys", net.authority.client(0)), "must be HOST:PORT")
    in_words(net.cli("serve", "--insecure", "--listen", f"0.0.0.0:{net.port}"), "that needs keys")
    in_words(net.cli("serve", "--listen", net.place), "--insecure for tests")


def test_a_client_at_a_wrong_address_says_so_and_goes_on_trying(net, kit) -> None:
    client = join(net, kit, 0)
    client.says(f"Nobody listens at {net.place}")
    serve(net, kit)
    client.says("joined as client 0")


def limited(size: int):
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return {"preexec_fn": limit}


def test_a_server_whose_disk_is_full_stops_in_words_and_goes_on_with_space(net, kit) -> None:
    """A limit on the size of files stands for the disk: the ledger is the largest."""
    clients = [join(net, kit, 0), join(net, kit, 1)]
    server = serve(net, kit, rounds=100, process=limited(12_000))
    log = server.ends(2)
    assert "nothing before it is lost" in log
    assert "Traceback" not in log
    done = net.rounds()
    assert 0 < done < 100
    server = serve(net, kit, rounds=100)
    server.ends()
    for client in clients:
        assert "the run is over after 100 rounds" in client.ends()
    assert "100 rounds" in net.cli("verify", net.out).ends()
