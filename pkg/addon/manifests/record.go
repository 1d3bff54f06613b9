package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube/apply"
	"lite.io/lite/pkg/layout"
)

// Each file has a ConfigMap that lists what it owns, so that nothing is left behind after a
// restart, with another leader, or when a file is removed while lite is down.
const (
	recordNamespace = metav1.NamespaceSystem
	recordKind      = "manifest" // value of the label
	recordCreated   = "created"  // key: objects that came with the file
	recordAdopted   = "adopted"  // key: objects that had been there before
	maxRecord       = 1000 << 10
)

// key names an object in the cluster, whatever the version of its group.
type key struct{ group, kind, namespace, name string }

func (k key) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

// owned is what a record has about an object.
type owned struct {
	version string
	adopted bool      // it existed before the file: never deleted
	uid     types.UID // once it has been applied
}

// record is what a file owns in the cluster, or is about to.
type record struct {
	file    string
	server  string // whose file it is
	objects map[key]owned
	uid     types.UID // of the ConfigMap; "" if there is none yet
	saved   string    // what the ConfigMap has
}

// recordName is the ConfigMap of a file, whose name may be anything.
func recordName(file string) string {
	sum := sha256.Sum256([]byte(file))
	return layout.RecordPrefix + hex.EncodeToString(sum[:8])
}

// fieldManagerOf is the field manager of a file's objects: at most 128 printable
// characters.
func fieldManagerOf(file string) string {
	manager := fieldManager + "/" + file
	if len(manager) > 128 || strings.ContainsFunc(manager, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fieldManager + "/" + recordName(file)
	}
	return manager
}

// ownerOf is who owns a file's objects.
func ownerOf(file string) apply.Owner { return apply.Owner{Manager: fieldManagerOf(file)} }

// lines is one key of the ConfigMap: an object on each line, such as
// "apps/v1 Deployment default/web <uid>".
func (r *record) lines(adopted bool) string {
	var lines []string
	for k, o := range r.objects {
		if o.adopted != adopted {
			continue
		}
		name := k.name
		if k.namespace != "" {
			name = k.namespace + "/" + k.name
		}
		lines = append(lines, schema.GroupVersion{Group: k.group, Version: o.version}.String()+" "+k.kind+" "+name+" "+string(o.uid)+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// parseRecord reads a ConfigMap, without lines that lite has not written.
func parseRecord(m corev1.ConfigMap) *record {
	r := &record{file: m.Annotations[layout.RecordFileAnnotation], server: m.Annotations[layout.RecordServerAnnotation], uid: m.UID,
		objects: map[key]owned{}}
	for _, adopted := range []bool{false, true} {
		for line := range strings.Lines(m.Data[dataKey(adopted)]) {
			fields := strings.Fields(line)
			if len(fields) == 3 {
				fields = append(fields, "") // not applied yet
			}
			if len(fields) != 4 {
				continue
			}
			gv, err := schema.ParseGroupVersion(fields[0])
			namespace, name, namespaced := strings.Cut(fields[2], "/")
			if !namespaced {
				namespace, name = "", fields[2]
			}
			if err != nil || gv.Version == "" || name == "" || namespaced && namespace == "" {
				continue
			}
			r.objects[key{gv.Group, fields[1], namespace, name}] = owned{gv.Version, adopted, types.UID(fields[3])}
		}
	}
	r.saved = r.content()
	return r
}

func dataKey(adopted bool) string {
	if adopted {
		return recordAdopted
	}
	return recordCreated
}

// content is all that a ConfigMap has, to compare.
func (r *record) content() string {
	return r.server + "\n" + r.lines(false) + "\n" + r.lines(true)
}

// configMap is the record as the cluster keeps it.
func (r *record) configMap() (*unstructured.Unstructured, error) {
	if n := len(r.content()); n > maxRecord {
		return nil, fmt.Errorf("has %d objects, too many to record: split it", len(r.objects))
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"data": map[string]any{recordCreated: r.lines(false), recordAdopted: r.lines(true)},
	}}
	o.SetNamespace(recordNamespace)
	o.SetName(recordName(r.file))
	o.SetLabels(map[string]string{layout.RecordLabel: recordKind})
	o.SetAnnotations(map[string]string{layout.RecordFileAnnotation: r.file, layout.RecordServerAnnotation: r.server})
	return o, nil
}
