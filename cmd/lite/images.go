package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/log"
)

func imagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images",
		Short: "Manage the images of this node",
		Long: `Manage the images of this node, as root, while lite runs. lite also keeps the archives
that you import, pins their images, and restores missing images at each start.`,
	}
	cmd.AddCommand(imagesListCommand(), imagesImportCommand(), imagesExportCommand(), imagesRemoveCommand())
	return cmd
}

// withStore calls f with the images of this node. It ends at a signal, so that f
// can clean up.
func withStore(cmd *cobra.Command, f func(ctx context.Context, s *images.Store) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	log.Bridge(slog.New(slog.DiscardHandler)) // what containerd's client logs comes back as an error as well
	cfg := configured()
	if cfg.ContainerRuntimeEndpoint != "" {
		return fmt.Errorf("images: this node uses the container runtime %s (container-runtime-endpoint), which stores its own images; use its tools, or `lite crictl`",
			cfg.ContainerRuntimeEndpoint)
	}
	if os.Geteuid() != 0 {
		return errors.New("images: needs root to use the container runtime of this node; run it as root")
	}
	dir := cfg.Layout().Data.Agent().Images()
	s, err := images.Open(ctx, strings.TrimPrefix(agent.Socket(cfg), "unix://"), dir)
	if errors.Is(err, images.ErrNotRunning) {
		return fmt.Errorf("images: %w; start lite first, or copy archives into %s: lite imports them when it starts", err, dir)
	}
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer s.Close()
	if err := f(ctx, s); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("images: interrupted")
		}
		return err
	}
	return nil
}

func imagesListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the images of this node and where they came from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: must be table or json", output)
			}
			return withStore(cmd, func(ctx context.Context, s *images.Store) error {
				list, err := s.List(ctx)
				if err != nil {
					return err
				}
				if output == "json" {
					return writeJSON(os.Stdout, list)
				}
				return writeImages(os.Stdout, list)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func writeImages(w io.Writer, list []images.Image) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tID\tSIZE\tPINNED\tSOURCE")
	for _, i := range list {
		id := strings.TrimPrefix(i.ID, "sha256:")
		pinned := "no"
		if i.Pinned {
			pinned = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", i.Name, id[:min(len(id), 12)], images.Bytes(i.Size), pinned, i.Source)
	}
	return t.Flush()
}

func imagesImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Import image archives and keep them on this node permanently",
		Long: `Import image archives, for example from docker save or lite images export, or OCI
layouts, as .tar, .tar.gz or .tar.zst. "-" reads an archive from standard input.

lite copies the archive into <data-dir>/agent/images and pins its images: garbage
collection does not remove them, and each start restores missing ones. To remove
them, use lite images remove.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			return withStore(cmd, func(ctx context.Context, s *images.Store) error {
				var errs []error
				for _, file := range files {
					if err := importArchive(ctx, s, file); err != nil {
						errs = append(errs, fmt.Errorf("import %s: %w", file, err))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
}

// importArchive imports one archive and prints what came with it.
func importArchive(ctx context.Context, s *images.Store, file string) error {
	from, name, size := io.Reader(os.Stdin), "", int64(0)
	if file == "-" {
		if term.IsTerminal(int(os.Stdin.Fd())) {
			return errors.New("standard input is a terminal; redirect an archive to it")
		}
	} else {
		f, err := os.Open(file)
		if err != nil {
			return errors.Unwrap(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.IsDir() {
			return errors.New("is a directory; pack it first: tar -C DIR -cf layout.tar .")
		}
		from, name, size = f, filepath.Base(file), info.Size()
	}
	bar := newMeter(os.Stderr, file)
	done, err := s.Import(ctx, interruptible{ctx, from}, name, size, bar.show)
	bar.end()
	if err != nil {
		return err
	}
	for _, image := range done.Images {
		fmt.Println("imported " + image)
	}
	for _, archive := range done.Replaced {
		fmt.Fprintf(os.Stderr, "removed %s: all its images are in %s\n", archive, done.Archive)
	}
	return nil
}

// interruptible is a reader that ends when ctx does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func imagesExportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [-o FILE] IMAGE...",
		Short: "Write images of this node to one archive",
		Long: `Write images of this node to one archive, an OCI layout that docker load can read.
The archive is compressed if FILE ends in .gz, .tgz, .zst or .tzst.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if output == "-" && term.IsTerminal(int(os.Stdout.Fd())) {
				return errors.New("export: standard output is a terminal; use -o FILE")
			}
			return withStore(cmd, func(ctx context.Context, s *images.Store) error {
				return exportImages(ctx, s, output, names)
			})
		},
		ValidArgsFunction: completeImages,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "archive to write; - is standard output")
	return cmd
}

func exportImages(ctx context.Context, s *images.Store, output string, names []string) error {
	found, err := s.Find(ctx, names)
	if err != nil {
		return err
	}
	if output == "-" {
		return s.Export(ctx, os.Stdout, found)
	}
	part, err := file.NewPart(output, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer part.Discard()
	bar := newMeter(os.Stderr, output)
	defer bar.end()
	err = images.Compress(bar.writer(images.RoomBeside(output, configured().DataDir).Writer(part, "the archive")), output,
		func(w io.Writer) error { return s.Export(ctx, w, found) })
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("export: %w; choose a disk with more room with -o", err)
	}
	if err != nil {
		return fmt.Errorf("export to %s: %w", output, err)
	}
	if err := part.Finish(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func imagesRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove IMAGE...",
		Short: "Remove images from this node, and the archives they came from",
		Long: `Remove images from this node, and the archives in <data-dir>/agent/images that would
restore them. You can only remove all images of an archive together.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return withStore(cmd, func(ctx context.Context, s *images.Store) error {
				archives, err := s.Remove(ctx, names, force)
				for _, archive := range archives {
					fmt.Fprintln(os.Stderr, "removed the archive "+archive)
				}
				return err
			})
		},
		ValidArgsFunction: completeImages,
	}
	cmd.Flags().BoolVar(&force, "force", false, "also remove images that containers use")
	return cmd
}

// completeImages offers the names of the images that are there.
func completeImages(cmd *cobra.Command, _ []string, _ string) (names []string, directive cobra.ShellCompDirective) {
	_ = withStore(cmd, func(ctx context.Context, s *images.Store) error {
		list, err := s.List(ctx)
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
