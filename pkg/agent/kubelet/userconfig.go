package kubelet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kubelet/config/v1beta1"
	internal "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	"k8s.io/kubernetes/pkg/kubelet/eviction"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// internalConfiguration is upstream's defaults, below our configuration, below the
// user's file and drop-ins. The user's flags come on top when they are parsed.
func internalConfiguration(c Config) (*internal.KubeletConfiguration, error) {
	ours, err := configuration(c)
	if err != nil {
		return nil, err
	}
	versioned, err := withFiles(c, ours)
	if err != nil {
		return nil, err
	}
	s, _, err := scheme.NewSchemeAndCodecs()
	if err != nil {
		return nil, err
	}
	s.Default(versioned)
	config := &internal.KubeletConfiguration{}
	if err := s.Convert(versioned, config, nil); err != nil {
		return nil, fmt.Errorf("convert the kubelet's configuration: %w", err)
	}
	switch {
	case config.EvictionHard == nil:
		config.EvictionHard = eviction.DefaultEvictionHard
	case config.MergeDefaultEvictionSettings:
		config.EvictionHard = withDefaults(config.EvictionHard, eviction.DefaultEvictionHard)
	}
	resolve(c, config)
	return config, nil
}

// versioned is a configuration as a file has it.
func versioned(config *internal.KubeletConfiguration) ([]byte, error) {
	s, _, err := scheme.NewSchemeAndCodecs()
	if err != nil {
		return nil, err
	}
	file := &v1beta1.KubeletConfiguration{}
	if err := s.Convert(config, file, nil); err != nil {
		return nil, fmt.Errorf("convert the kubelet's configuration: %w", err)
	}
	for header := range file.StaticPodURLHeader { // credentials, perhaps
		file.StaticPodURLHeader[header] = []string{"…"}
	}
	return json.Marshal(file)
}

func withDefaults(signals, defaults map[string]string) map[string]string {
	all := maps.Clone(defaults)
	maps.Copy(all, signals)
	return all
}

// withFiles is our configuration merged with the user's files from config and config-dir.
func withFiles(c Config, ours *v1beta1.KubeletConfiguration) (*v1beta1.KubeletConfiguration, error) {
	file, dropIns, err := userFiles(c)
	if err != nil || len(file)+len(dropIns) == 0 {
		return ours, err
	}
	merged, err := json.Marshal(ours)
	if err != nil {
		return nil, fmt.Errorf("encode the kubelet's configuration: %w", err)
	}
	if merged, err = over(merged, file, owned(c, ours)); err != nil {
		return nil, err
	}
	// A file names all thresholds that it wants, a drop-in changes some.
	config := &v1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(merged, config); err == nil && config.EvictionHard == nil && len(dropIns) > 0 {
		config.EvictionHard = eviction.DefaultEvictionHard
		if merged, err = json.Marshal(config); err != nil {
			return nil, fmt.Errorf("encode the kubelet's configuration: %w", err)
		}
	}
	if merged, err = over(merged, dropIns, owned(c, ours)); err != nil {
		return nil, err
	}
	config = &v1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(merged, config); err != nil {
		return nil, fmt.Errorf("merge the kubelet's configuration: %w", err)
	}
	return config, nil
}

// over merges files over a configuration, one after the other.
func over(merged []byte, files []kube.ConfigFile, owned []kube.Owned) (_ []byte, err error) {
	for _, f := range files {
		if err := f.Claim(owned); err != nil {
			return nil, err
		}
		if merged, err = f.Over(merged); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// userFiles is the file of config, and what is in config-dir: as upstream has it,
// all files *.conf in it and below it, by name.
func userFiles(c Config) (file, dropIns []kube.ConfigFile, err error) {
	_, codecs, err := scheme.NewSchemeAndCodecs(serializer.EnableStrict)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	read := func(flag, path string) kube.ConfigFile {
		f, err := kube.ReadConfigFile("kubelet", flag, path, codecs.UniversalDeserializer(), "KubeletConfiguration")
		errs = append(errs, err)
		return f
	}
	if path, _ := kube.Value(c.ExtraArgs, "config"); path != "" {
		file = append(file, read("config", path))
	}
	if dir, _ := kube.Value(c.ExtraArgs, "config-dir"); dir != "" {
		walked := walk(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && filepath.Ext(path) == ".conf" {
				dropIns = append(dropIns, read("config-dir", path))
			}
			return err
		})
		if walked != nil {
			errs = append(errs, kube.FileError("kubelet", "config-dir", dir, walked, "use a directory that is readable"))
		}
	}
	return file, dropIns, errors.Join(errs...)
}

// walk is filepath.WalkDir that follows dir if it is a link. Upstream would silently find
// nothing behind a link (1.37).
func walk(dir string, visit fs.WalkDirFunc) error {
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if info, err := os.Stat(target); err != nil || !info.IsDir() {
		return cmp.Or(err, errors.New("is not a directory"))
	}
	return filepath.WalkDir(target, visit)
}

// owned is what the rest of the node depends on.
func owned(c Config, ours *v1beta1.KubeletConfiguration) []kube.Owned {
	certificate := "remove it: lite creates and renews the certificates of a node"
	return []kube.Owned{
		{Field: "authentication.x509.clientCAFile", Value: c.CAFile, Remedy: "remove it: the API server presents a certificate of the cluster's authority"},
		{Field: "tlsCertFile", Value: c.CertFile, Remedy: certificate},
		{Field: "tlsPrivateKeyFile", Value: c.KeyFile, Remedy: certificate},
		{Field: "rotateCertificates", Value: ours.RotateCertificates, Remedy: certificate},
		{Field: "serverTLSBootstrap", Value: ours.ServerTLSBootstrap, Remedy: certificate},
		{Field: "containerRuntimeEndpoint", Value: c.Runtime, Remedy: "set --container-runtime-endpoint"},
		{Field: "cgroupDriver", Value: ours.CgroupDriver, Remedy: "remove it: kubelet and containerd have to agree"},
		{Field: "port", Value: layout.KubeletPort, Remedy: "remove it"},
		{Field: "enableServer", Value: true, Remedy: "remove it: logs and exec would not work"},
		{Field: "registerNode", Value: true, Remedy: "remove it: there would be no node"},
		{Field: "logging.format", Value: "text", Remedy: "set --log-format"},
		{Field: "logging.verbosity", Value: 0, Remedy: "set --log-level"},
	}
}

// resolve makes paths that are relative to the user's file absolute, as upstream
// does. Ours are.
func resolve(c Config, config *internal.KubeletConfiguration) {
	dir, _ := kube.Value(c.ExtraArgs, "config-dir")
	if file, given := kube.Value(c.ExtraArgs, "config"); given {
		dir = filepath.Dir(file)
	}
	for _, path := range internal.KubeletConfigurationPathRefs(config) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}
