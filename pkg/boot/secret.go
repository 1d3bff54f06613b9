package boot

import (
	"fmt"
	"os"
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/upgrade"
)

// hidePassword has the process begin anew if its arguments, which every user of the machine can read, contain the
// password of the datastore: that goes into the environment, which root alone reads. It does not return then.
func hidePassword(cfg *config.Config) error {
	if !cfg.ShowsPassword() {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("hide the datastore's password: %w", err)
	}
	var environment []string
	os.Args, environment = inEnvironment(os.Args, os.Environ(), "--datastore-endpoint", "LITE_DATASTORE_ENDPOINT", cfg.DatastoreEndpoint)
	if err := upgrade.Reexec(program, environment); err != nil {
		return fmt.Errorf("hide the datastore's password: %w", err)
	}
	return nil
}

// inEnvironment is arguments without a flag, and an environment with a variable that has its value.
func inEnvironment(args, environment []string, flag, variable, value string) (without, with []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == flag:
			i++
		case !strings.HasPrefix(args[i], flag+"="):
			without = append(without, args[i])
		}
	}
	for _, pair := range environment {
		if !strings.HasPrefix(pair, variable+"=") {
			with = append(with, pair)
		}
	}
	return without, append(with, variable+"="+value)
}
