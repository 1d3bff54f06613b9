package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// statement is what is said of a release about where it comes from, in the form of
// in-toto (https://in-toto.io/Statement/v1) and SLSA (https://slsa.dev/provenance/v1).
// It has no signature of its own: SHA256SUMS names it, and that is signed. There is no
// time in it, nor who has built: the same commit has the same.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []artifact `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     provenance `json:"predicate"`
}

// artifact is a file, or a source, by its digest.
type artifact struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		ResolvedDependencies []artifact        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// maker is what builds: whoever has the commit can build the same, so it names no
// machine.
const maker = "https://lite.io/lite/scripts/release"

// prove makes the statement of all files of a directory.
func (r *release) prove(dir string) ([]byte, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		digest, err := digestOf(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		s.Subject = append(s.Subject, artifact{Name: e.Name(), Digest: map[string]string{"sha256": fmt.Sprintf("%x", digest)}})
	}
	build := &s.Predicate.BuildDefinition
	build.BuildType = maker
	build.ExternalParameters = map[string]string{"VERSION": r.version, "BASE_URL": r.baseURL}
	build.ResolvedDependencies = []artifact{{URI: "git+https://lite.io/lite", Digest: map[string]string{"gitCommit": r.commit}}}
	s.Predicate.RunDetails.Builder.ID = maker
	text, err := json.MarshalIndent(s, "", "  ")
	return append(text, '\n'), err
}
