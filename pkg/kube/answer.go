package kube

import "k8s.io/client-go/rest"

// Answer is what a part of the API that has no objects answers, or the error in the words of the server, which
// rest.Result.Raw replaces by what the code means in general (client-go 0.37).
func Answer(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}
