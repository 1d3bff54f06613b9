package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/layout"
)

// schemes are those of datastore-endpoint, as k3s has them, and the kinds of stores that they stand for.
var schemes = map[string]string{
	"sqlite":     cluster.SQLite,
	"postgres":   cluster.PostgreSQL,
	"postgresql": cluster.PostgreSQL,
	"mysql":      cluster.MySQL,
	"http":       cluster.ExternalEtcd,
	"https":      cluster.ExternalEtcd,
}

// datastoreKind is what an endpoint leads to.
func datastoreKind(endpoint string) string {
	scheme, _, _ := strings.Cut(endpoint, "://")
	if endpoint == "" {
		return cluster.Etcd
	}
	return schemes[scheme]
}

// datastoreEndpoint takes what k3s takes. Of what is wrong with it, nothing is quoted: it may hold a password.
func datastoreEndpoint(text string) (string, *Error) {
	if text == "" {
		return "", nil
	}
	forms := "use one of sqlite://, postgres://user:password@host:5432/database, mysql://user:password@tcp(host:3306)/database and " + etcdURL("host")
	scheme, rest, ok := strings.Cut(text, "://")
	kind := schemes[scheme]
	switch {
	case !ok:
		return "", bad("is not a URL", forms)
	case kind == "":
		return "", bad("has a scheme that no datastore has", forms)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", bad("contains control characters", "write it on one line")
	case kind == cluster.MySQL: // no URL behind the scheme: its driver knows what is wrong
		return text, nil
	case kind == cluster.SQLite:
		path, _, _ := strings.Cut(rest, "?")
		if path != "" && !strings.HasPrefix(path, "/") {
			return "", bad("is not an absolute path", "write sqlite:///path/to/file, or sqlite:// for a file in data-dir")
		}
		return text, nil
	}
	parts := []string{text}
	if kind == cluster.ExternalEtcd {
		parts = strings.Split(text, ",")
	}
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
		if err := datastoreURL(parts[i], scheme, kind); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, ","), nil
}

func datastoreURL(text, scheme, kind string) *Error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return bad("is not a URL", "replace special characters in the user's name and password by % and their codes, such as %2F for /")
	case u.Scheme != scheme:
		return bad("mixes schemes", "use "+scheme+":// in all URLs of the list")
	case u.Host == "" && kind == cluster.ExternalEtcd:
		return bad("names no host", "write it like "+etcdURL("192.0.2.1"))
	case kind == cluster.ExternalEtcd && u.User != nil:
		return bad("contains a user, and the API server authenticates to an etcd by certificate alone", "set datastore-certfile and datastore-keyfile")
	case kind == cluster.ExternalEtcd && strings.Trim(u.Path, "/")+u.RawQuery != "":
		return bad("contains more than scheme, host and port", "write it like "+etcdURL("192.0.2.1"))
	}
	return nil
}

func etcdURL(host string) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(layout.EtcdPort))
}

// veil is what may be shown of a secret value: of a URL its scheme.
func veil(secret string) string {
	scheme, _, ok := strings.Cut(secret, "://")
	if !ok || schemes[scheme] == "" {
		return "not shown"
	}
	return scheme + "://…"
}

// ShowsPassword reports whether the endpoint of the datastore was given on the command line with a password, where
// every user of the machine sees it.
func (c *Config) ShowsPassword() bool {
	if c.sources["datastore-endpoint"] != "flag --datastore-endpoint" {
		return false
	}
	_, rest, _ := strings.Cut(c.DatastoreEndpoint, "://")
	user, _, ok := strings.Cut(rest, "@")
	_, password, _ := strings.Cut(user, ":")
	return ok && password != "" || strings.Contains(rest, "password=")
}

// validateDatastore wants options of a datastore to be of the one that there is.
func (c *Config) validateDatastore(wrong func(key string, value any, problem, remedy string)) {
	kind := datastoreKind(c.DatastoreEndpoint)
	files := []struct{ key, path string }{
		{"datastore-cafile", c.DatastoreCAFile}, {"datastore-certfile", c.DatastoreCertFile}, {"datastore-keyfile", c.DatastoreKeyFile},
	}
	for _, f := range files {
		if f.path != "" && kind == cluster.SQLite {
			wrong(f.key, f.path, "is for a datastore on the network, and datastore-endpoint names a file", "remove it")
		}
	}
	switch {
	case c.DatastoreCertFile != "" && c.DatastoreKeyFile == "":
		wrong("datastore-certfile", c.DatastoreCertFile, "has no key", "set datastore-keyfile")
	case c.DatastoreKeyFile != "" && c.DatastoreCertFile == "":
		wrong("datastore-keyfile", c.DatastoreKeyFile, "has no certificate", "set datastore-certfile")
	}
	if kind == cluster.Etcd {
		return
	}
	if len(c.EtcdArgs) > 0 {
		wrong("etcd-arg", c.EtcdArgs[0], "is for the embedded etcd, and datastore-endpoint names another store", "remove one of them")
	}
	if c.EtcdExposeMetrics {
		wrong("etcd-expose-metrics", true, "is for the embedded etcd, and datastore-endpoint names another store", "remove one of them")
	}
	for _, flag := range []string{"etcd-servers", "etcd-cafile", "etcd-certfile", "etcd-keyfile"} {
		if argument, _ := c.argument("kube-apiserver-arg", flag); argument != "" {
			wrong("kube-apiserver-arg", argument, "contradicts datastore-endpoint", "remove it")
		}
	}
}
