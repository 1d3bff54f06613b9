package controlplane

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/plugin/pkg/admission/security/podsecurity"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"
)

// readAdmission reads what a user's file says of plugins as the plugins will when they
// are made, and finds one that cannot be without. Settings of a plugin that there is
// not are ignored by upstream (1.37), and somebody counts on them.
func readAdmission(s *options.ServerRunOptions, file string) error {
	plugins := s.Admission.GenericAdmission.Plugins
	known := plugins.Registered()
	settings, err := admission.ReadAdmissionConfiguration(known, file, apiServerScheme())
	if err != nil {
		return err
	}
	// A form of long ago, which has settings of one plugin alone, is no error here.
	configured, _ := settled(file)
	for name, elsewhere := range configured {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has settings for %q, which is not a plugin", name)
		}
		if elsewhere == "" || !admits(s, name) {
			continue
		}
		if _, err := os.ReadFile(elsewhere); err != nil { // upstream ends the process (1.37)
			return fmt.Errorf("settings of %s: %w", name, err)
		}
	}
	for _, name := range known {
		if _, has := configured[name]; !has && !slices.Contains(enabled(s), name) || !admits(s, name) {
			continue
		}
		pluginConfig, err := settings.ConfigFor(name)
		if err != nil {
			return fmt.Errorf("settings of %s: %w", name, err)
		}
		if err := tryPlugin(plugins, name, pluginConfig); err != nil {
			return err
		}
	}
	return nil
}

// tryPlugin makes a plugin of its settings.
func tryPlugin(plugins *admission.Plugins, name string, pluginConfig io.Reader) error {
	if name == podsecurity.PluginName { // it looks at levels only once it has a cluster (1.37)
		c, err := load.LoadFromReader(pluginConfig)
		if err == nil {
			err = validation.ValidatePodSecurityConfiguration(c).ToAggregate()
		}
		if err != nil {
			return fmt.Errorf("couldn't init admission plugin %q: %w", name, err)
		}
		return nil
	}
	made := false
	if _, err := plugins.InitPlugin(name, pluginConfig, when(func() { made = true })); err != nil && !made {
		return err
	}
	return nil
}

// when is told that a plugin has been made of its settings. That it is not complete
// without a cluster is no matter here.
type when func()

// Initialize implements admission.PluginInitializer.
func (w when) Initialize(admission.Interface) { w() }

// settled is the plugins that a file has settings of, and the files that those are in
// where they are not in it.
func settled(file string) (map[string]string, error) {
	c, err := decode[*apiserver.AdmissionConfiguration](file)
	if err != nil {
		return nil, err
	}
	configured := map[string]string{}
	for _, p := range c.Plugins {
		if p.Path != "" && !filepath.IsAbs(p.Path) {
			p.Path = filepath.Join(filepath.Dir(file), p.Path)
		}
		configured[p.Name] = p.Path
	}
	return configured, nil
}

// enabled is the plugins that lite or a user names. The old list of a user's has all.
func enabled(s *options.ServerRunOptions) []string {
	if s.Admission.PluginNames != nil {
		return s.Admission.PluginNames
	}
	return s.Admission.GenericAdmission.EnablePlugins
}

// admits reports whether a plugin is on.
func admits(s *options.ServerRunOptions, name string) bool {
	a := s.Admission.GenericAdmission
	if slices.Contains(enabled(s), name) {
		return true
	}
	return s.Admission.PluginNames == nil && !a.DefaultOffPlugins.Has(name) && !slices.Contains(a.DisablePlugins, name)
}
