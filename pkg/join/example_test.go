package join_test

import (
	"fmt"
	"log/slog"
	"os"

	"lite.io/lite/pkg/join"
)

// A token says which server to ask and how to know that it is the right one. However it is printed, its secret stays out
// of logs and errors; only Text has it.
func ExampleParse() {
	token, err := join.Parse("lite://abcdef.0123456789abcdef@192.0.2.1:6443/sha256/" +
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.ID, token.Server)
	fmt.Printf("%+v\n", struct{ Token join.Token }{token})
	slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})).Info("Joining", "token", token)

	_, err = join.Parse("lite://abcdef.0123456789abcde@192.0.2.1:6443")
	fmt.Println(err)
	// Output:
	// abcdef 192.0.2.1:6443
	// {Token:lite://abcdef.<secret>@192.0.2.1:6443/sha256/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
	// level=INFO msg=Joining token=lite://abcdef.<secret>@192.0.2.1:6443/sha256/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
	// has a secret, between the dot and @, that is not 16 of a-z and 0-9; copy the whole token as `lite token create` printed it
}
