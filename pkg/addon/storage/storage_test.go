package storage

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func localVolume(name, path string) *v1.PersistentVolume {
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}}},
	}
}

func TestEntryOf(t *testing.T) {
	const root = "/data/storage"
	for _, test := range []struct{ volume, path, want, err string }{
		{"pvc-1", root + "/pvc-1_ns_claim", "pvc-1_ns_claim", ""},
		{"pvc-1", root + "/pvc-1_", "pvc-1_", ""},
		{"pvc-1", root, "", "is not directly in"},
		{"pvc-1", root + "/", "", "is not directly in"},
		{"pvc-1", "/pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", "pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", "", "", "is not directly in"},
		{"pvc-1", "/data/pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", root + "2/pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", root + "/pvc-1_a_b/c", "", "is not directly in"},
		{"pvc-1", root + "/pvc-1_a_b/", "", "is not directly in"},
		{"pvc-1", root + "//pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", root + "/./pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", root + "/x/../pvc-1_a_b", "", "is not directly in"},
		{"pvc-1", root + "/../pvc-1_a_b", "", "is not directly in"},
		{"..", root + "/..", "", "is not directly in"},
		{"pvc-1", root + "/pvc-2_a_b", "", "is not named after the volume"},
		{"pvc-1", root + "/pvc-11_a_b", "", "is not named after the volume"},
		{"pvc-1", root + "/pvc-1", "", "is not named after the volume"},
		{"other", root + "/other_a_b", "", "is not named after the volume"},
	} {
		got, err := entryOf(localVolume(test.volume, test.path), root)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s at %q: %q, %v", test.volume, test.path, got, err)
		}
	}
	hostPath := &v1.PersistentVolume{}
	if _, err := entryOf(hostPath, root); err == nil || !strings.Contains(err.Error(), "is not a local volume") {
		t.Errorf("got %v", err)
	}
}

func TestDirectoryName(t *testing.T) {
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data"}}
	if got := directoryName("pvc-1", claim); got != "pvc-1_ns_data" {
		t.Errorf("got %s", got)
	}
	claim.Name = strings.Repeat("x", 253)
	claim.Namespace = strings.Repeat("n", 63)
	uid := "pvc-00000000-0000-0000-0000-000000000000"
	if got := directoryName(uid, claim); len(got) != 255 || !strings.HasPrefix(got, uid+"_nnn") {
		t.Errorf("got %s", got)
	}
}
