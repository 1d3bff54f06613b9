package nodes

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"
)

// place is where packets can be sent from, and to.
type place struct {
	name, IP string
	listener interface {
		ListenPacket(network, address string) (net.PacketConn, error)
	}
	isPod bool
}

// Echo requests that are as large as a packet of IP can be come through in
// fragments, and so do the answers: between the pods of all nodes, and between
// pods and nodes.
func (s *suite) testPing(t *testing.T) {
	var places []place
	for _, p := range s.pods {
		places = append(places, place{p.String(), p.IP, p, true}, place{p.node.Name, p.node.IP, p.node, false})
	}
	const headers = 20 + 8 // of IP, and of ICMP
	largest := bytes.Repeat([]byte("lite"), 1<<14)[:1<<16-1-headers]
	for i, from := range places {
		for j, to := range places {
			if i == j || !from.isPod && !to.isPod {
				continue
			}
			soon(t, func() error {
				if err := from.ping(to.IP, largest); err != nil {
					return fmt.Errorf("%s pings %s: %w", from.name, to.name, err)
				}
				return nil
			})
		}
	}
}

// ping sends an echo request and waits for the answer, which must be the same.
func (p place) ping(to string, payload []byte) error {
	conn, err := p.listener.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	request := echoRequest(payload)
	if _, err := conn.WriteTo(request, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		return err
	}
	// The socket sees whatever ICMP comes here.
	for buffer := make([]byte, 1<<16); ; {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer := buffer[:n]
		if from.String() != to || n < 8 || answer[0] != 0 /* echo reply */ || !bytes.Equal(answer[4:8], request[4:8]) {
			continue
		}
		if !bytes.Equal(answer[8:], payload) {
			return fmt.Errorf("%d bytes of %d came back, or others", n-8, len(payload))
		}
		return nil
	}
}

// echoRequest is an ICMP message with an identifier of its own.
func echoRequest(payload []byte) []byte {
	message := append([]byte{8, 0, 0, 0, 0, 0, 0, 0}, payload...) // type, code, sum, identifier and sequence
	_, _ = rand.Read(message[4:8])
	var sum uint32
	for i := 0; i+1 < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	if len(message)%2 == 1 {
		sum += uint32(message[len(message)-1]) << 8
	}
	for sum > 1<<16-1 {
		sum = sum>>16 + sum&(1<<16-1)
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return message
}
