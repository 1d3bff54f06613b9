package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"sigs.k8s.io/yaml"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/file/document"
)

// ConfigFile is a file of a user's that configures a component.
type ConfigFile struct {
	component, flag, path string
	fields                map[string]any
}

// Owned is a field that lite decides. A file may say the same, or nothing.
type Owned struct {
	Field  string // with dots
	Value  any    // ours
	Remedy string
}

// ReadConfigFile reads the file that a user names to a component by a flag. strict
// refuses fields that it does not know; it fills in no defaults, which upstream
// answers feature gates that are unknown with a panic for (1.37). kind is what has
// to be in the file.
func ReadConfigFile(component, flag, path string, strict runtime.Decoder, kind string) (ConfigFile, error) {
	f := ConfigFile{component: component, flag: flag, path: path}
	data, err := file.ReadRegular(path)
	if err != nil {
		return f, f.wrong(err, "use a file that is readable")
	}
	only, err := document.Only(data) // a decoder would not look at others
	if only == nil && err == nil {
		err = errors.New("is empty")
	}
	if err != nil {
		return f, f.wrong(err, "put one object of kind "+kind+" into it")
	}
	_, gvk, err := strict.Decode(data, nil, nil)
	if err == nil && gvk.Kind != kind {
		err = fmt.Errorf("is of kind %s", gvk.Kind)
	}
	if err != nil {
		return f, f.wrong(err, "correct the file, which must contain an object of kind "+kind)
	}
	if err := yaml.Unmarshal(data, &f.fields); err != nil {
		return f, f.wrong(err, "")
	}
	return f, f.checkGates()
}

// checkGates refuses feature gates that the process does not know.
func (f ConfigFile) checkGates() error {
	gates := map[string]bool{}
	given, _ := f.fields["featureGates"].(map[string]any)
	for gate, on := range given {
		gates[gate], _ = on.(bool) // the decoder has seen to it that it is one
	}
	if err := utilfeature.DefaultFeatureGate.DeepCopy().SetFromMap(gates); err != nil {
		return f.wrong(fmt.Errorf("featureGates: %w", err), "")
	}
	return nil
}

func (f ConfigFile) wrong(err error, remedy string) error {
	return FileError(f.component, f.flag, f.path, err, remedy)
}

// Claim refuses values of fields that lite decides, and takes those fields out.
func (f ConfigFile) Claim(owned []Owned) error {
	var errs []error
	for _, o := range owned {
		path := strings.Split(o.Field, ".")
		in, last := f.fields, path[len(path)-1]
		for _, name := range path[:len(path)-1] {
			in, _ = in[name].(map[string]any)
		}
		value, given := in[last]
		delete(in, last)
		if given && !unset(value) && fmt.Sprint(value) != fmt.Sprint(o.Value) {
			errs = append(errs, f.wrong(fmt.Errorf("%s: lite decides this field, and %v is not %q", o.Field, value, fmt.Sprint(o.Value)), o.Remedy))
		}
	}
	return errors.Join(errs...)
}

// unset is a value by which a file that was written by a program says nothing.
func unset(value any) bool { return value == nil || value == "" || value == 0.0 }

// Prune takes out what says nothing, for kinds in which an empty text never means
// anything else than the default.
func (f ConfigFile) Prune() { prune(f.fields) }

func prune(fields map[string]any) {
	for name, value := range fields {
		if inner, ok := value.(map[string]any); ok {
			prune(inner)
		}
		if value == nil || value == "" {
			delete(fields, name)
		}
	}
}

// Over is the file on top of base, both JSON.
func (f ConfigFile) Over(base []byte) ([]byte, error) {
	patch, err := json.Marshal(f.fields)
	if err != nil {
		return nil, f.wrong(err, "")
	}
	merged, err := jsonpatch.MergePatch(base, patch)
	if err != nil {
		return nil, f.wrong(err, "")
	}
	return merged, nil
}

// Wrong is an error of upstream's about what the file has said.
func (f ConfigFile) Wrong(err error) error {
	if err == nil {
		return nil
	}
	return f.wrong(err, "")
}
