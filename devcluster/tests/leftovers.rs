//! What clusters leave on the machine: nothing, whatever ended them. Needs root; `make test` runs it with the node tests.
//! Everything happens in a network namespace of the test's own, beside whatever else runs on this machine.

mod common;

use std::{fs, process::Stdio};

use common::{DEVCLUSTER, Machine, cgroups, processes, wait_until};

#[test]
fn a_cluster_survives_a_kill_and_leaves_nothing_when_it_goes() {
    let machine = Machine::new("leftovers");
    let before = machine.traces();

    machine.devcluster(&["up", "--cluster-only"]);
    let components = machine.components();
    assert!(components.contains_key("kubelet") && components.contains_key("postgres"), "{components:?}");
    machine.kubectl(&["create", "deployment", "hello", "--image=127.0.0.1:5000/hello:v1", "--replicas=2"]);
    machine.kubectl(&["wait", "deployment/hello", "--for=condition=Available", "--timeout=120s"]);
    assert!(machine.traces().len() > before.len() + 5, "the traces of a running cluster are not seen");

    machine.devcluster(&["up", "--cluster-only"]);
    assert_eq!(machine.components(), components, "a second `up` changes nothing");

    let supervisor = format!("supervise --data={}", machine.data.display());
    let killed: Vec<String> = processes(&supervisor).into_keys().map(|id| id.to_string()).collect();
    assert!(!killed.is_empty());
    machine.run(
        "kill",
        &[&["-KILL".to_owned()], killed.as_slice()].concat().iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let data = machine.data.to_string_lossy().into_owned();
    wait_until("nothing runs after the kill", || processes(&data).is_empty());

    machine.devcluster(&["up", "--cluster-only"]);
    let pods = ["get", "pods", "--output", "jsonpath={.items[*].status.containerStatuses[0].ready}"];
    wait_until("the pods run again", || machine.kubectl(&pods) == "true true");

    machine.devcluster(&["down"]);
    assert_eq!(machine.traces(), before, "`down` leaves the machine as it was");
    assert_eq!(machine.run(DEVCLUSTER, &["status", &format!("--data={data}")]).status.code(), Some(3));

    machine.devcluster(&["clean"]);
    assert!(!machine.data.exists());
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let machine = Machine::new("port");
    let before = machine.traces();
    let listen =
        "import socket,time; s=socket.create_server(('127.0.0.1', 54329)); print('up', flush=True); time.sleep(600)";
    let mut listener = machine.command("python3", &["-c", listen]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("somebody listens", || machine.must("ss", &["-ltn"]).contains(":54329"));
    let output = machine.run(DEVCLUSTER, &["up", "--cluster-only", &format!("--data={}", machine.data.display())]);
    listener.kill().unwrap();
    listener.wait().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("54329") && said.contains("PostgreSQL"), "{said}");
    assert_eq!(machine.traces(), before);
}

#[test]
fn a_run_passes_the_exit_code_on_and_leaves_nothing() {
    let machine = Machine::new("run");
    let output = machine.run(DEVCLUSTER, &["run", "--", "sh", "-c", "kubectl get namespaces && pwd && exit 7"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    let here = std::env::current_dir().unwrap();
    assert!(said.contains("kube-system") && said.contains(here.to_str().unwrap()), "{said}");
}

#[test]
fn a_killed_run_takes_its_processes_along() {
    let machine = Machine::new("killed");
    let script = format!("echo started > {0}; sleep 1000 # {0}", machine.data.display());
    let mut run = machine.command(DEVCLUSTER, &["run", "--node", "--", "sh", "-c", &script]).spawn().unwrap();
    wait_until("the command runs", || machine.data.exists());
    let cluster = format!("eventflow-test-{}", run.id());
    assert!(processes(&cluster).len() > 5 && !cgroups(&cluster).is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("its processes are gone", || processes(&cluster).is_empty());
    fs::remove_file(&machine.data).unwrap();

    let output = machine.run(DEVCLUSTER, &["run", "--node", "--", "true"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cgroups(&cluster), Vec::<String>::new(), "the next run removes the cgroups of a killed one");
    assert!(!std::env::temp_dir().join(&cluster).exists(), "and its folder");
}
