// Package storage gives claims directories of a node as their volumes.
//
// It has two halves. The [Controller] runs once per cluster: it creates a PersistentVolume
// for each claim of a class with our provisioner, on the node that the scheduler has
// selected. [Volumes] runs on every node: it creates the directories of the volumes there,
// and removes their data when they are no longer wanted.
//
// They communicate through the API. A node publishes the path of its volumes in an
// annotation of its Node, and in one of each PersistentVolume whether the directory was
// created or its data is gone. The latter is all that a node may change about a volume, and
// only its own; the policy in the battery's manifest enforces that.
package storage

import (
	"fmt"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"

	"lite.io/lite/pkg/layout"
)

const (
	stateReady   = "ready"   // made, and never to be made again: an empty one would hide a loss
	stateRemoved = "removed" // nothing is left of it

	// provisionedBy is Kubernetes' word for who made a volume.
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

// maxName is the longest name of a file on Linux.
const maxName = 255

// directoryName is the name of a volume's directory, which shows a person whose it is.
func directoryName(volume string, claim *v1.PersistentVolumeClaim) string {
	name := strings.Join([]string{volume, claim.Namespace, claim.Name}, "_")
	return name[:min(len(name), maxName)]
}

// entryOf is the name of a volume's directory below root. Whatever is not
// exactly there is not ours to touch: a volume may have been written by hand.
func entryOf(pv *v1.PersistentVolume, root string) (string, error) {
	if pv.Spec.Local == nil {
		return "", fmt.Errorf("volume %s is not a local volume; lite leaves it alone", pv.Name)
	}
	path := pv.Spec.Local.Path
	dir, name := filepath.Split(path)
	switch {
	case path != filepath.Clean(path) || filepath.Clean(dir) != root:
		return "", fmt.Errorf("%q is not directly in %s, the directory of this node's volumes; lite leaves it alone", path, root)
	case !strings.HasPrefix(name, layout.VolumeNamesPrefix) || !strings.HasPrefix(name, pv.Name+"_"):
		return "", fmt.Errorf("%q is not named after the volume, %s_…; lite leaves it alone", path, pv.Name)
	}
	return name, nil
}

// wantsRemoval reports whether the data of a volume is to go.
func wantsRemoval(pv *v1.PersistentVolume) bool {
	return pv.Status.Phase == v1.VolumeReleased && pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete
}
