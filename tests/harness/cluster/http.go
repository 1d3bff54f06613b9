package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Dialer is a place to connect from: a [Host], or a [Network] for outside.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Get fetches a URL, whose host must be numeric, from a place. A status other
// than 200 is an error.
func Get(from Dialer, url string) (string, error) {
	client := http.Client{
		Timeout: 10 * time.Second,
		// A connection of its own for each, so that each may reach another pod.
		Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true},
	}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return string(body), err
}
