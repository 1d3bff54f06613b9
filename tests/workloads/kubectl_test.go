package workloads

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func (s suite) testLogs(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, pod("talker", "for i in 1 2 3; do echo line $i; done; sleep 1; echo oops >&2; sleep 3600")+
		"---"+pod("quitter", "echo last words; sleep 1; exit 1"))
	ns.WaitFor(t, "condition=Ready", "pod/talker")
	eventually(t, func() error {
		if got := ns.Kubectl(t, "logs", "talker"); got != "line 1\nline 2\nline 3\noops\n" {
			return fmt.Errorf("logs: %q", got)
		}
		return nil
	})
	if got := ns.Kubectl(t, "logs", "talker", "--tail=1"); got != "oops\n" {
		t.Errorf("logs --tail=1: %q", got)
	}
	// The log of a container that was replaced is still there.
	eventually(t, func() error {
		if out, err := ns.KubectlErr(t, "logs", "quitter", "--previous"); err != nil || out != "last words\n" {
			return fmt.Errorf("logs --previous: %q, %v", out, err)
		}
		return nil
	})
	// --follow goes on until the container ends.
	follow := ns.Node.Command(within(t, timeout), "lite", "kubectl", "-n", ns.Name, "logs", "--follow", "talker")
	stdout, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for range 4 {
		if !lines.Scan() {
			t.Fatal("logs --follow ended early")
		}
	}
	ns.Kubectl(t, "delete", "pod", "talker", "--wait=false")
	for lines.Scan() {
		t.Errorf("logs --follow went on with %q", lines.Text())
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("logs --follow: %v", err)
	}
}

func (s suite) testExec(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, pod("box", "sleep 3600"))
	ns.WaitFor(t, "condition=Ready", "pod/box")
	if got := ns.KubectlStdin(t, "typed\n", "exec", "-i", "box", "--", "cat"); got != "typed\n" {
		t.Errorf("cat printed %q", got)
	}
	_, err := ns.KubectlErr(t, "exec", "box", "--", "sh", "-c", "exit 42")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 42 {
		t.Errorf("exit code of a command: %v, want 42", err)
	}
	// More than any buffer on the way holds.
	if got := ns.Exec(t, "box", "sh", "-c", "yes 0123456789abcdef | head -c 5000000"); len(got) != 5000000 {
		t.Errorf("got %d bytes of 5000000", len(got))
	}
}

func (s suite) testAttach(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    stdin: true
    stdinOnce: true
    command: [sh, -c, "while read -r line; do echo got $line; done"]
`)
	ns.WaitFor(t, "condition=Ready", "pod/echo")
	attach := ns.Node.Command(within(t, timeout), "lite", "kubectl", "-n", ns.Name, "attach", "-i", "echo")
	stdin, err := attach.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	defer attach.Wait()
	defer stdin.Close()
	lines := bufio.NewScanner(stdout)
	for _, word := range []string{"hello", "again"} {
		fmt.Fprintln(stdin, word)
		if !lines.Scan() || lines.Text() != "got "+word {
			t.Fatalf("sent %q, got %q", word, lines.Text())
		}
	}
	// Its input is over when we leave, and so is the container.
	stdin.Close()
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/echo")
}

func (s suite) testCopy(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, pod("box", "sleep 3600"))
	ns.WaitFor(t, "condition=Ready", "pod/box")
	ns.Node.WriteFile(t, "/tmp/copy/there/a", "one\n")
	ns.Node.WriteFile(t, "/tmp/copy/there/below/b", strings.Repeat("0123456789\n", 100_000))
	ns.Kubectl(t, "cp", "/tmp/copy/there", "box:/tmp/here")
	ns.Kubectl(t, "cp", "box:/tmp/here", "/tmp/copy/back")
	ns.Node.Output(t, "diff", "-r", "/tmp/copy/there", "/tmp/copy/back")
}

func (s suite) testPortForward(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, server("web")+`
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`)
	ns.WaitFor(t, "condition=Ready", "pod/web")
	for _, target := range []string{"pod/web", "service/web"} {
		port := map[string]string{"pod/web": ":8080", "service/web": ":80"}[target]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		forward := ns.Node.Command(ctx, "lite", "kubectl", "-n", ns.Name, "port-forward", target, port)
		stdout, err := forward.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := forward.Start(); err != nil {
			t.Fatal(err)
		}
		var address string
		if _, err := fmt.Fscanf(stdout, "Forwarding from %s ->", &address); err != nil {
			t.Errorf("%s: %v", target, err)
		} else if got, err := cluster.Get(ns.Node, "http://"+address+"/hostname"); err != nil || got != "web" {
			t.Errorf("%s: got %q, %v", target, got, err)
		}
		cancel()
		_ = forward.Wait() // killed
	}
}

func (s suite) testDescribe(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, pod("box", "sleep 3600"))
	ns.WaitFor(t, "condition=Ready", "pod/box")
	eventually(t, func() error {
		// Events come a moment later than what they tell of.
		got := ns.Kubectl(t, "describe", "pod", "box")
		for _, want := range []string{"lite.test/busybox:1", "Running", "Scheduled", "Started", ns.Node.Name} {
			if !strings.Contains(got, want) {
				return fmt.Errorf("%q is not in:\n%s", want, got)
			}
		}
		return nil
	})
	if got := ns.Node.Kubectl(t, "describe", "node", ns.Node.Name); !strings.Contains(got, "KubeletReady") {
		t.Errorf("describe node:\n%s", got)
	}
}
