package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	definitions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/audit/policy"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/server/resourceconfig"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	cliflag "k8s.io/component-base/cli/flag"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/kubeapiserver/authorizer"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
)

// checkFiles reads the files that a user names to the API server as upstream will
// when it runs, which is too late to say what is wrong with them.
func checkFiles(c Config, s *options.ServerRunOptions) error {
	var errs []error
	check := func(flag, file string, read func(file string) error) {
		if file == "" {
			return
		}
		if err := read(file); err != nil {
			errs = append(errs, kube.FileError("kube-apiserver", flag, file, err, ""))
		}
	}
	check("authorization-config", s.Authorization.AuthorizationConfigurationFile, func(file string) error {
		_, _, err := authorizer.LoadAndValidateFile(file, authorizationcel.NewDefaultCompiler(), nil)
		return err
	})
	if !c.admits() {
		check("admission-control-config-file", s.Admission.GenericAdmission.ConfigFile, func(file string) error { return readAdmission(s, file) })
	}
	if s.Audit.PolicyFile != c.Dir.AuditPolicy() && s.Audit.PolicyFile != c.Node.AuditPolicyFile {
		check("audit-policy-file", s.Audit.PolicyFile, readPolicy)
	}
	if file := s.Etcd.EncryptionProviderConfigFilepath; file != c.Dir.Encryption() {
		check("encryption-provider-config", file, readEncryption)
	}
	if file := c.Node.AuditPolicyFile; file != "" {
		if err := readPolicy(file); err != nil {
			errs = append(errs, fmt.Errorf("audit-policy-file %q: %w; correct the file", file, err))
		}
	}
	return errors.Join(errs...)
}

func readPolicy(file string) error {
	_, err := policy.LoadPolicyFromFile(file)
	return err
}

func readEncryption(file string) error {
	e, err := decode[*apiserver.EncryptionConfiguration](file)
	if err != nil {
		return err
	}
	return validation.ValidateEncryptionConfiguration(e, false).ToAggregate()
}

func readAuthentication(file string, issuers []string) (*apiserver.AuthenticationConfiguration, error) {
	a, err := decode[*apiserver.AuthenticationConfiguration](file)
	if err != nil {
		return nil, err
	}
	return a, validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), a, issuers).ToAggregate()
}

func apiServerScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return scheme
}

// decode reads a file that configures the API server; a field that is unknown or
// there twice is an error.
func decode[T runtime.Object](file string) (T, error) {
	var none T
	data, err := os.ReadFile(file)
	if err != nil {
		return none, err
	}
	o, err := runtime.Decode(serializer.NewCodecFactory(apiServerScheme(), serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return none, err
	}
	typed, ok := o.(T)
	if !ok {
		return none, fmt.Errorf("is a %s", o.GetObjectKind().GroupVersionKind().Kind)
	}
	return typed, nil
}

// checkOptions is what of upstream's validation needs no file of ours: they may not
// be made yet. Run has all of it.
func checkOptions(s *options.ServerRunOptions) error {
	errs := slices.Concat(
		s.Authentication.Validate(), s.Authorization.Validate(), s.Admission.Validate(), s.Audit.Validate(),
		s.Etcd.Validate(), s.SecureServing.Validate(), s.Features.Validate(),
		s.APIEnablement.Validate(legacyscheme.Scheme, definitions.Scheme, aggregatorscheme.Scheme),
	)
	if len(errs) == 0 {
		if err := checkAPIs(s.APIEnablement.RuntimeConfig); err != nil {
			errs = append(errs, err)
		}
	}
	if delay := s.GenericServerRunOptions.ShutdownDelayDuration; delay > shutdownWithin {
		errs = append(errs, fmt.Errorf("shutdown-delay-duration=%s is longer than the time that lite has to stop; use %s or less", delay, shutdownWithin))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("kube-apiserver-arg: %w", utilerrors.NewAggregate(errs))
}

// stable is the versions of APIs that the parts of Kubernetes ask for.
var stable = regexp.MustCompile(`^v\d+$`)

// checkAPIs refuses to turn stable APIs off. Some part waits for nearly each of them, for
// ever, and which ones changes with each version of Kubernetes.
func checkAPIs(configured cliflag.ConfigurationMap) error {
	var off []string
	for _, served := range []struct {
		source   func() *serverstorage.ResourceConfig
		registry resourceconfig.GroupVersionRegistry
	}{
		{controlplane.DefaultAPIResourceConfigSource, legacyscheme.Scheme},
		{definitions.DefaultAPIResourceConfigSource, definitions.Scheme},
		{aggregator.DefaultAPIResourceConfigSource, aggregatorscheme.Scheme},
	} {
		before := served.source()
		after, err := resourceconfig.MergeAPIResourceConfigs(served.source(), configured, served.registry)
		if err != nil {
			return fmt.Errorf("runtime-config: %w; correct it", err)
		}
		for gv, on := range before.GroupVersionConfigs {
			if on && stable.MatchString(gv.Version) && !after.GroupVersionConfigs[gv] {
				off = append(off, gv.String())
			}
		}
		for gvr, on := range after.ResourceConfigs {
			if !on && stable.MatchString(gvr.Version) && before.ResourceEnabled(gvr) {
				off = append(off, gvr.GroupVersion().String()+"/"+gvr.Resource)
			}
		}
	}
	if len(off) == 0 {
		return nil
	}
	slices.Sort(off)
	const few = 3
	text := strings.Join(off[:min(few, len(off))], ", ")
	if more := len(off) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("runtime-config=%s turns off %s, without which parts of the cluster wait forever; leave stable APIs on, alpha and beta ones may be off", configured.String(), text)
}

// shutdownWithin is what the API server may take of the 25 s within which lite stops. Were
// it cut off, so would be etcd, which stops after it.
const shutdownWithin = 15 * time.Second

// warnings is what a user has said to the API server that takes away what others
// rely on.
func warnings(c Config, s *options.ServerRunOptions) (lines []string) {
	warn := func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf("kube-apiserver-arg "+format, args...))
	}
	if !slices.Contains(enabled(s), "NodeRestriction") {
		warn("disables the admission plugin NodeRestriction: whoever takes over a node may change all others")
	}
	if c.Cluster.Profile == config.ProfileCIS && !c.admits() {
		warn("admission-control-config-file replaces what profile cis sets: set the defaults of Pod Security in that file")
	}
	if configured, err := settled(s.Admission.GenericAdmission.ConfigFile); err == nil && !c.admits() {
		for _, name := range slices.Sorted(maps.Keys(configured)) {
			if !admits(s, name) {
				warn("admission-control-config-file has settings for %s, which is off; set enable-admission-plugins=%s", name, name)
			}
		}
	}
	modes := sets.New(s.Authorization.Modes...)
	if file := s.Authorization.AuthorizationConfigurationFile; file != "" {
		if a, _, err := authorizer.LoadAndValidateFile(file, authorizationcel.NewDefaultCompiler(), nil); err == nil {
			for _, one := range a.Authorizers {
				modes.Insert(string(one.Type))
			}
		}
	}
	if missing := sets.New("Node", "RBAC").Difference(modes); missing.Len() > 0 && !modes.Has("AlwaysAllow") {
		warn("disables the authorizer %s: nodes and components of the cluster depend on it", strings.Join(sets.List(missing), " and "))
	}
	if a := s.Authentication.Anonymous; a.FlagsSet && a.Allow {
		warn("anonymous-auth=true allows anonymous requests to every path, as far as RBAC does; without it they reach only health checks and cluster-info")
	}
	if !s.Authentication.BootstrapToken.Enable {
		warn("enable-bootstrap-token-auth=false: no machine can join")
	}
	if file, own := kube.Value(c.Node.APIServerArgs, "encryption-provider-config"); own && c.Used {
		warn("encryption-provider-config=%s: Secrets that were written before are readable only if the file also contains the key in %s", file, c.Dir.Encryption())
	}
	return lines
}
