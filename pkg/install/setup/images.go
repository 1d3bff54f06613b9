package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/release"
)

// checkImages verifies the images that come with the program.
func (s *setup) checkImages() error {
	a, err := s.openArtifact()
	if err != nil || a == nil {
		return err
	}
	if err := a.CheckImages(s.plan.sums); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return nil
}

// openArtifact is nil if nothing comes with the program.
func (s *setup) openArtifact() (*release.Artifact, error) {
	if s.options.artifact == "" {
		return nil, nil
	}
	a, err := release.Open(s.options.artifact, runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("INSTALL_LITE_ARTIFACT: %w", err)
	}
	return a, nil
}

// installImages puts images to where lite imports them from, each under its name once it is complete and verified again:
// who owns the artifact may have changed it since.
func (s *setup) installImages(ctx context.Context) error {
	a, err := s.openArtifact()
	if err != nil || a == nil {
		return err
	}
	data := s.plan.config.DataDir
	err = a.InstallImages(s.plan.sums, s.at(s.plan.config.ImageDir), func(name, _ string) error {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		s.printf("image archive %s", name)
		return nil
	})
	var wrong *release.WrongSumError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("%s has changed since it was checked: the service was not started; do not use these files, and check who can write to %s",
			wrong.Name, s.options.artifact)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EROFS), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot write to %s (%d MiB are free): the service was not started; free some space and run the installer again",
			data, s.room(data))
	case err != nil:
		return fmt.Errorf("%w: the service was not started; fix that and run the installer again", err)
	}
	return nil
}
