package document_test

import (
	"fmt"

	"lite.io/lite/pkg/file/document"
)

// Values are what was written, with their lines: decoded, this mode would be 384.
func ExampleOnly() {
	top, err := document.Only([]byte("# the administrator's kubeconfig\nwrite-kubeconfig-mode: 0600\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	key, value := top.Content[0], top.Content[1]
	fmt.Printf("line %d: %s is %s\n", value.Line, key.Value, value.Value)

	_, err = document.Only([]byte("token: *hunter2\n")) // the secret is not in the error
	fmt.Println(err)
	// Output:
	// line 2: write-kubeconfig-mode is 0600
	// line 1: a value starts with *, which is an alias in YAML, and its anchor does not exist; put it in quotes
}
