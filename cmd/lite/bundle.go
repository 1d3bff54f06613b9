package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/airgap"
	"lite.io/lite/pkg/version"
)

func bundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Create and check bundles: lite and images in one file, for machines without a network",
	}
	cmd.AddCommand(bundleCreateCommand(), bundleListCommand(), bundleVerifyCommand())
	return cmd
}

// bundleOptions is what a user says of a bundle.
type bundleOptions struct {
	output, arch, binary string
	images, files        []string
	force                bool
}

func bundleCreateCommand() *cobra.Command {
	var o bundleOptions
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a bundle of lite, its installer and images",
		Long: `Create one file that holds lite, its installer, the images that you name, and
checksums. On a machine without a network, unpack install.sh from it:

  tar -xf lite-<version>-linux-<arch>.tar install.sh
  INSTALL_LITE_ARTIFACT=lite-<version>-linux-<arch>.tar sh install.sh

--image adds an image of this node, --image-file an existing archive. Repeat them,
or separate values with commas. The same lite and the same images always produce
the same bytes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return createBundle(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "file to write (default "+airgap.Name("<version>", "<arch>")+" here)")
	f.StringSliceVar(&o.images, "image", nil, "name of an image of this node; lite must be running")
	f.StringSliceVar(&o.files, "image-file", nil, "an archive of images: .tar, .tar.gz or .tar.zst")
	f.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture: amd64 or arm64; needs --binary")
	f.StringVar(&o.binary, "binary", "", "lite for another architecture, plain or compressed with gzip (default this program)")
	f.BoolVar(&o.force, "force", false, "replace an existing file")
	_ = cmd.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions(airgap.Architectures(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("image", completeImages)
	return cmd
}

// check finds what is wrong before anything is written.
func (o *bundleOptions) check() error {
	if !slices.Contains(airgap.Architectures(), o.arch) {
		return fmt.Errorf("--arch %q: must be %s", o.arch, strings.Join(airgap.Architectures(), " or "))
	}
	if o.binary == "" {
		if o.arch != runtime.GOARCH {
			return fmt.Errorf("--arch %s: this lite is for %s; specify the other one with --binary", o.arch, runtime.GOARCH)
		}
		o.binary = "/proc/self/exe" // this very one, whatever its path leads to by now
	}
	if len(o.images) > 0 && o.arch != runtime.GOARCH {
		return fmt.Errorf("--image: the images of this node are for %s; add those for %s with --image-file", runtime.GOARCH, o.arch)
	}
	if o.output == "" {
		o.output = airgap.Name(version.Version(), o.arch)
	}
	info, err := os.Stat(o.output)
	switch {
	case o.output == "-":
		return errors.New("--output -: lite reads the bundle back to check it, so it must be a file")
	case err == nil && info.IsDir():
		return fmt.Errorf("--output %s: is a directory; specify a file in it", o.output)
	case err == nil && !o.force:
		return fmt.Errorf("--output %s: already exists; use --force to replace it", o.output)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

func createBundle(cmd *cobra.Command, o bundleOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	request := airgap.Request{Arch: o.arch, Disk: images.RoomBeside(o.output, configured().DataDir), Binary: o.binary, Files: o.files}
	if len(o.images) == 0 {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		defer stop()
		return writeBundle(ctx, o.output, request)
	}
	return withStore(cmd, func(ctx context.Context, s *images.Store) error {
		found, err := s.Find(ctx, o.images)
		if err != nil {
			return err
		}
		request.Export = func(w io.Writer) error {
			return images.Compress(w, "images.tar.zst", func(w io.Writer) error { return s.Export(ctx, w, found) })
		}
		return writeBundle(ctx, o.output, request)
	})
}

// writeBundle writes a bundle, reads it again, and puts it in its place if it is
// what it should be.
func writeBundle(ctx context.Context, output string, r airgap.Request) error {
	part, err := file.NewPart(output, 0o644)
	if err != nil {
		return fmt.Errorf("create the bundle: %w", err)
	}
	defer part.Discard()
	bar := newMeter(os.Stderr, output)
	defer bar.end()
	r.Progress = func(file string, done int64) { bar.show("writing "+file, done, 0) }
	err = airgap.Create(ctx, part.File, r)
	switch {
	case ctx.Err() != nil:
		return errors.New("bundle: interrupted")
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("create the bundle: %w; choose a disk with more room with --output", err)
	case err != nil:
		return fmt.Errorf("create the bundle: %w", err)
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	files, err := airgap.Verify(part.File, func(file string, done int64) { bar.show("checking "+file, done, 0) })
	if err != nil {
		return fmt.Errorf("read the bundle back: %w", err)
	}
	if err := part.Finish(); err != nil {
		return fmt.Errorf("create the bundle: %w", err)
	}
	bar.end()
	fmt.Println(output)
	return writeFiles(os.Stdout, files)
}

func writeFiles(w io.Writer, files []airgap.File) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "FILE\tSIZE\tIMAGES")
	for _, f := range files {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, images.Bytes(f.Size), strings.Join(f.Images, ", "))
	}
	return t.Flush()
}

func bundleListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list FILE",
		Short: "Check a bundle and list its contents",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: must be table or json", output)
			}
			files, err := verifyBundle(args[0])
			if err != nil {
				return err
			}
			if output == "table" {
				return writeFiles(os.Stdout, files)
			}
			return writeJSON(os.Stdout, files)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func bundleVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that a bundle is complete: compare its checksums and read everything in it",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := verifyBundle(args[0]); err != nil {
				return err
			}
			fmt.Println(args[0] + " is complete")
			return nil
		},
	}
}

func verifyBundle(path string) ([]airgap.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	defer f.Close()
	bar := newMeter(os.Stderr, path)
	defer bar.end()
	files, err := airgap.Verify(f, func(file string, done int64) { bar.show("checking "+file, done, 0) })
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", path, err)
	}
	return files, nil
}
