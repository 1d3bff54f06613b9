package upgrade

import (
	"os"
	"path/filepath"
	"testing"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/layout"
)

// scene is a data directory and a program beside it, as an upgrade from old to
// new has left them in a state.
type scene struct {
	dataDir, binary string
	journal         *Journal
}

func (s scene) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func newScene(t *testing.T) scene {
	t.Helper()
	dir := t.TempDir()
	s := scene{dataDir: filepath.Join(dir, "data"), binary: filepath.Join(dir, "bin", "lite")}
	s.journal = &Journal{From: "v0.1.0", To: "v0.2.0", Role: config.Server, Binary: s.binary, Guard: filepath.Join(dir, "upgrading")}
	s.write(t, s.binary, "old")
	s.write(t, filepath.Join(s.dataDir, "version"), "v0.1.0\n")
	s.write(t, filepath.Join(s.dataDir, "node-name"), "node\n")
	s.write(t, filepath.Join(s.dataDir, "server", "token"), "before")
	s.write(t, layout.Staged(s.binary), "new")
	if err := s.journal.enter(s.dataDir, Prepared); err != nil {
		t.Fatal(err)
	}
	return s
}

// keep is what the upgrade does before it swaps.
func (s scene) keep(t *testing.T) {
	t.Helper()
	k := &backup.Maker{DataDir: s.dataDir, Backup: backup.Backup{Role: config.Server, Binary: s.binary}}
	k.Backup.Versions.Version = "v0.1.0"
	if err := k.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := k.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.enter(s.dataDir, Swapped); err != nil {
		t.Fatal(err)
	}
}

// work is what the new version does to the data.
func (s scene) work(t *testing.T) {
	t.Helper()
	if err := backup.ReplaceProgram(s.binary); err != nil {
		t.Fatal(err)
	}
	s.write(t, filepath.Join(s.dataDir, "version"), "v0.2.0\n")
	s.write(t, filepath.Join(s.dataDir, "server", "token"), "after")
}

// is checks which version the node is, wholly.
func (s scene) is(t *testing.T, program, version, token string) {
	t.Helper()
	for path, want := range map[string]string{
		s.binary: program, filepath.Join(s.dataDir, "version"): version + "\n",
		filepath.Join(s.dataDir, "server", "token"): token, filepath.Join(s.dataDir, "node-name"): "node\n",
	} {
		if got := content(t, path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
}

// ended checks that nothing is under way any more.
func (s scene) ended(t *testing.T, want State) {
	t.Helper()
	j, err := ReadJournal(s.dataDir)
	if err != nil || j.Pending() {
		t.Fatalf("the journal is %+v, %v", j, err)
	}
	if j == nil && want != "" || j != nil && j.State != want {
		t.Errorf("the journal is %+v, want %q", j, want)
	}
	for _, path := range []string{layout.Staged(s.binary), layout.Data(s.dataDir).Keeping(), layout.Data(s.dataDir).KeptBefore()} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was left behind", path)
		}
	}
}

func (s scene) settle(t *testing.T, self string) string {
	t.Helper()
	j, err := ReadJournal(s.dataDir)
	if err != nil {
		t.Fatal(err)
	}
	program, err := settle(s.dataDir, j, self, "new")
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestSettle(t *testing.T) {
	quietly(t)
	t.Run("prepared, nothing kept", func(t *testing.T) {
		s := newScene(t)
		s.settle(t, "v0.1.0")
		s.is(t, "old", "v0.1.0", "before")
		s.ended(t, "")
	})
	t.Run("prepared, copying", func(t *testing.T) {
		s := newScene(t)
		k := &backup.Maker{DataDir: s.dataDir, Backup: backup.Backup{Role: config.Server, Binary: s.binary}}
		if err := k.Begin(); err != nil {
			t.Fatal(err)
		}
		if kept, err := backup.Read(s.dataDir); kept != nil || err != nil {
			t.Errorf("what is not complete counts as kept: %v, %v", kept, err)
		}
		s.settle(t, "v0.1.0")
		s.is(t, "old", "v0.1.0", "before")
		s.ended(t, "")
	})
	t.Run("prepared, between two renames", func(t *testing.T) {
		s := newScene(t)
		s.keep(t) // the generation before
		if err := os.Rename(layout.Data(s.dataDir).Kept(), layout.Data(s.dataDir).KeptBefore()); err != nil {
			t.Fatal(err)
		}
		if err := s.journal.enter(s.dataDir, Prepared); err != nil {
			t.Fatal(err)
		}
		s.settle(t, "v0.1.0")
		s.ended(t, "")
		if kept, err := backup.Read(s.dataDir); kept == nil || err != nil {
			t.Errorf("what was kept before is lost: %v", err)
		}
	})
	t.Run("prepared, all kept", func(t *testing.T) {
		s := newScene(t)
		s.write(t, filepath.Join(layout.Data(s.dataDir).Kept(), "kept.json"), `{"versions": {"version": "v0.0.9"}}`)
		s.keep(t)
		if err := s.journal.enter(s.dataDir, Prepared); err != nil {
			t.Fatal(err)
		}
		s.settle(t, "v0.1.0")
		s.is(t, "old", "v0.1.0", "before")
		s.ended(t, "")
		if kept, err := backup.Read(s.dataDir); kept == nil || kept.Versions.Version != "v0.0.9" {
			t.Errorf("kept is %v, %v", kept, err)
		}
	})
	t.Run("swapped, program not replaced", func(t *testing.T) {
		s := newScene(t)
		s.keep(t)
		s.settle(t, "v0.1.0")
		s.is(t, "old", "v0.1.0", "before")
		s.ended(t, "")
	})
	t.Run("swapped", func(t *testing.T) {
		s := newScene(t)
		s.keep(t)
		s.work(t)
		for range maxStarts {
			if program := s.settle(t, "v0.2.0"); program != "" {
				t.Fatalf("becomes %s", program)
			}
			s.is(t, "new", "v0.2.0", "after")
		}
		// One time too many.
		if program := s.settle(t, "v0.2.0"); program != s.binary {
			t.Errorf("becomes %q", program)
		}
		s.is(t, "old", "v0.1.0", "before")
		s.settle(t, "v0.1.0")
		s.ended(t, RolledBack)
		if got := content(t, filepath.Join(backup.Dropped(s.dataDir), "server", "token")); got != "after" {
			t.Errorf("what the new version wrote is %q", got)
		}
		if kept, err := backup.Read(s.dataDir); kept != nil || err != nil {
			t.Errorf("what is back is kept still: %v, %v", kept, err)
		}
	})
	t.Run("started, a third version", func(t *testing.T) {
		s := newScene(t)
		s.keep(t)
		s.work(t)
		s.settle(t, "v0.3.0")
		s.is(t, "new", "v0.2.0", "after")
		s.ended(t, "")
	})
	t.Run("returning", func(t *testing.T) {
		s := newScene(t)
		s.keep(t)
		s.work(t)
		if err := s.journal.enter(s.dataDir, Returning); err != nil {
			t.Fatal(err)
		}
		s.settle(t, "v0.2.0")
		s.is(t, "new", "v0.2.0", "after")
		s.ended(t, "")
		if kept, err := backup.Read(s.dataDir); kept == nil || err != nil {
			t.Errorf("what is kept is lost: %v", err)
		}
	})
}

// A rollback may be cut off before each of its steps.
func TestRestoreGoesOnWhereItWas(t *testing.T) {
	quietly(t)
	kept := func(s scene, name string) string { return filepath.Join(layout.Data(s.dataDir).Kept(), "data", name) }
	dropped := func(s scene, name string) string { return filepath.Join(backup.Dropped(s.dataDir), name) }
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	putBack := func(t *testing.T, s scene, entry string) {
		t.Helper()
		move(t, filepath.Join(s.dataDir, entry), dropped(s, entry))
		move(t, kept(s, entry), filepath.Join(s.dataDir, entry))
	}
	for name, cut := range map[string]func(*testing.T, scene){
		"at once": func(*testing.T, scene) {},
		"between the renames of an entry": func(t *testing.T, s scene) {
			move(t, filepath.Join(s.dataDir, "server"), dropped(s, "server"))
		},
		"after one entry": func(t *testing.T, s scene) {
			putBack(t, s, "server")
		},
		"before the program": func(t *testing.T, s scene) {
			for _, e := range []string{"server", "version", "node-name"} {
				putBack(t, s, e)
			}
			s.write(t, layout.Staged(s.binary), "ol")
		},
		"after all": func(t *testing.T, s scene) {
			if err := backup.Restore(s.dataDir); err != nil {
				t.Fatal(err)
			}
		},
		"an entry is gone": func(t *testing.T, s scene) {
			if err := os.RemoveAll(filepath.Join(s.dataDir, "server")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.keep(t)
			s.work(t)
			if err := s.journal.enter(s.dataDir, RollingBack); err != nil {
				t.Fatal(err)
			}
			cut(t, s)
			if program := s.settle(t, "v0.2.0"); program != s.binary {
				t.Errorf("becomes %q", program)
			}
			s.is(t, "old", "v0.1.0", "before")
			s.settle(t, "v0.1.0")
			s.ended(t, RolledBack)
			if _, err := os.Lstat(kept(s, "server")); err == nil {
				t.Error("there are two of the datastore")
			}
		})
	}
}

func TestNothingIsPutBackThatIsNotComplete(t *testing.T) {
	s := newScene(t)
	s.keep(t)
	s.work(t)
	if err := os.Remove(filepath.Join(layout.Data(s.dataDir).Kept(), "kept.json")); err != nil {
		t.Fatal(err)
	}
	says(t, backup.Restore(s.dataDir), "is incomplete")
	s.is(t, "new", "v0.2.0", "after")
}

func TestDrivingIsForOne(t *testing.T) {
	dir := t.TempDir()
	d, _, err := Drive(dir)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	other, pid, err := Drive(dir)
	if err != nil || other != nil || pid != os.Getpid() {
		t.Errorf("a second one drives: %v, %d, %v", other, pid, err)
	}
	d.Close()
	if driven(dir) {
		t.Error("driven after it ended")
	}
}

// A lite that finishes an upgrade itself stops when asked to, whatever is in progress; so
// does one whose upgrade has died.
func TestUnderWay(t *testing.T) {
	s := newScene(t)
	if UnderWay(s.dataDir) {
		t.Error("under way, and nobody drives")
	}
	d, _, err := Drive(s.dataDir)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	defer d.Close()
	if UnderWay(s.dataDir) {
		t.Error("what this process drives was taken for another's")
	}
	s.write(t, layout.Data(s.dataDir).Driver(), "1\n")
	if !UnderWay(s.dataDir) {
		t.Error("not under way, and another process drives")
	}
	if err := Relaunch(s.dataDir, Asked, nil); err != nil {
		t.Errorf("asked to end: %v", err)
	}
	if err := forget(s.dataDir); err != nil {
		t.Fatal(err)
	}
	if UnderWay(s.dataDir) {
		t.Error("under way without a journal")
	}
}

func TestStartable(t *testing.T) {
	for _, test := range []struct {
		entered, now State
		want         bool
	}{
		{Prepared, Prepared, false}, {Prepared, Swapped, true}, {Prepared, Started, true}, {Prepared, Healthy, true},
		{Started, Started, false}, {Started, RollingBack, false}, {Started, Restored, true}, {Started, RolledBack, true},
		{Returning, Returning, false}, {Returning, RollingBack, false}, {Returning, Restored, true},
		{RollingBack, RollingBack, false}, {RollingBack, Restored, true},
	} {
		if got := startable(test.entered, &Journal{State: test.now}); got != test.want {
			t.Errorf("stopped at %s, now %s: %v", test.entered, test.now, got)
		}
	}
	if !startable(Prepared, nil) {
		t.Error("an upgrade that was forgotten does not start lite")
	}
}

func TestGuardIsRunByTheKeptProgramAlone(t *testing.T) {
	quietly(t)
	says(t, Resume("/usr/local/bin/lite"), "nothing to resume by hand")
	s := newScene(t)
	s.keep(t)
	s.work(t)
	for range maxStarts + 1 {
		if err := Resume(backup.Program(s.dataDir)); err != nil {
			t.Fatal(err)
		}
	}
	s.is(t, "old", "v0.1.0", "before")
}

// A node that restarts while somebody watches the upgrade does not wait for them: they
// would find that nothing runs, and roll back.
func TestAgainWhileWatched(t *testing.T) {
	s := newScene(t)
	s.keep(t)
	d, _, err := Drive(s.dataDir)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	defer d.Close()
	for _, state := range []State{Swapped, Started, Restored} {
		if err := s.journal.enter(s.dataDir, state); err != nil {
			t.Fatal(err)
		}
		if err := Relaunch(s.dataDir, Again, nil); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// A program that was installed after a rollback does not re-exec itself forever.
func TestInstalledSinceItWasTakenBack(t *testing.T) {
	s := newScene(t)
	s.keep(t)
	s.work(t)
	if err := backup.Restore(s.dataDir); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.binary); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, s.binary); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.enter(s.dataDir, Restored); err != nil {
		t.Fatal(err)
	}
	if program := s.settle(t, "v0.3.0"); program != "" {
		t.Errorf("it is to become %s", program)
	}
	s.ended(t, "")
}

// The images of an upgrade that never began, or is taken back, go; what one of them
// has replaced comes back.
func TestImagesGoWithTheUpgrade(t *testing.T) {
	quietly(t)
	begin := func(t *testing.T) (scene, *backup.Maker) {
		s := newScene(t)
		k := &backup.Maker{DataDir: s.dataDir, Backup: backup.Backup{Role: config.Server, Binary: s.binary}}
		k.Backup.Versions.Version = "v0.1.0"
		must(t, k.Begin())
		put(t, filepath.Join(layout.Data(s.dataDir).Keeping(), "images", "mine.tar"), "before")
		put(t, filepath.Join(layout.Data(s.dataDir).Agent().Images(), "mine.tar"), "after")
		put(t, filepath.Join(layout.Data(s.dataDir).Agent().Images(), "new.tar"), "after")
		s.journal.Images = []string{"mine.tar", "new.tar", "never.tar"}
		must(t, s.journal.write(s.dataDir))
		k.Backup.Images = s.journal.Images
		return s, k
	}
	check := func(t *testing.T, s scene) {
		t.Helper()
		if got := content(t, filepath.Join(layout.Data(s.dataDir).Agent().Images(), "mine.tar")); got != "before" {
			t.Errorf("the archive that was there holds %q", got)
		}
		if _, err := os.Lstat(filepath.Join(layout.Data(s.dataDir).Agent().Images(), "new.tar")); err == nil {
			t.Error("a new archive was left behind")
		}
	}
	t.Run("prepared", func(t *testing.T) {
		s, _ := begin(t)
		s.settle(t, "v0.1.0")
		check(t, s)
		s.ended(t, "")
	})
	t.Run("not replaced", func(t *testing.T) {
		s, k := begin(t)
		must(t, k.Complete())
		must(t, s.journal.enter(s.dataDir, Swapped))
		s.settle(t, "v0.1.0")
		check(t, s)
		s.ended(t, "")
	})
	t.Run("rolled back", func(t *testing.T) {
		s, k := begin(t)
		must(t, k.Complete())
		s.work(t)
		must(t, s.journal.enter(s.dataDir, RollingBack))
		s.settle(t, "v0.2.0")
		check(t, s)
		s.is(t, "old", "v0.1.0", "before")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
