package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/kube"
)

// ranges is what a cluster cannot change once it has given addresses out of it:
// nodes, Services and certificates keep the ones they have.
type ranges struct {
	ClusterCIDR []netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR []netip.Prefix `json:"serviceCIDR"`
}

// CheckRanges refuses other ranges of addresses than the cluster was made with.
func CheckRanges(cfg *config.Config) error {
	file := cfg.Layout().Data.Server().Ranges()
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var was ranges
	if err == nil {
		err = json.Unmarshal(data, &was)
	}
	if err != nil {
		return fmt.Errorf("read the cluster's ranges of addresses %s: %w; restore the file, or remove it if cluster-cidr and service-cidr have not changed", file, err)
	}
	for _, r := range []struct {
		key      string
		was, now []netip.Prefix
	}{{"cluster-cidr", was.ClusterCIDR, cfg.ClusterCIDR}, {"service-cidr", was.ServiceCIDR, cfg.ServiceCIDR}} {
		if !slices.Equal(r.was, r.now) {
			return fmt.Errorf("%s %q: the cluster in data-dir %s was created with %s, and its addresses are in use; set it to that, or create a new cluster in another data-dir",
				r.key, kube.Join(r.now), cfg.DataDir, kube.Join(r.was))
		}
	}
	return nil
}

// rememberRanges is for CheckRanges of later starts.
func rememberRanges(cfg *config.Config) error {
	data, err := json.Marshal(ranges{cfg.ClusterCIDR, cfg.ServiceCIDR})
	if err == nil {
		err = file.Write(cfg.Layout().Data.Server().Ranges(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the cluster's ranges of addresses: %w", err)
	}
	return nil
}
