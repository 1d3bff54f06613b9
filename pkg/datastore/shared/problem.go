package shared

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Problem is what is wrong with a store.
type Problem struct {
	Store  string // what it is and where, without credentials
	Err    error
	Remedy string // in the imperative; "" = nobody knows
	// Lasting is whether it does not go away by waiting.
	Lasting bool
}

// Lasting is a problem that does not go away by waiting, of the store that whoever hands it on names.
func Lasting(err error, remedy string) error {
	return &Problem{Err: err, Remedy: remedy, Lasting: true}
}

// Error is one line.
func (p *Problem) Error() string {
	text := fmt.Sprintf("%s: %v", p.Store, p.Err)
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	return text
}

// Unwrap is for errors.Is.
func (p *Problem) Unwrap() error { return p.Err }

// TLSRemedy is what to do about an error of TLS, "" if it is none.
func TLSRemedy(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return "set datastore-cafile to the certificate of the authority that signed the datastore's"
	case errors.As(err, &name):
		return "use a name or address in datastore-endpoint that the datastore's certificate contains"
	case errors.As(err, &invalid):
		return "renew the datastore's certificate, or check this machine's clock"
	case errors.As(err, &alert):
		return "set datastore-certfile and datastore-keyfile to what the datastore accepts"
	case errors.As(err, &record):
		return "configure TLS in the datastore, or remove it from datastore-endpoint"
	}
	return ""
}
