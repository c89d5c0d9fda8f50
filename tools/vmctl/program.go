// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vmctl/daemon/client"
)

// program is one run of vmctl: what it takes from its process, so that tests
// can give it something else, and its top-level flags.
type program struct {
	in     *os.File
	out    io.Writer
	errOut io.Writer
	getenv func(string) string
	now    func() time.Time

	socket string
	server string
	format string

	started bool // a command was found and its arguments can be meant
}

// run does what args ask for and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.errOut)
	err := root.ExecuteContext(ctx)
	if ctx.Err() != nil {
		if errors.As(err, new(goesOn)) {
			fmt.Fprintf(p.errOut, "vmctl: %s\n", oneLine(err.Error()))
		}
		return statusInterrupted
	}
	if err == nil {
		return statusOK
	}
	if nobodyReads(err) {
		return statusPipe
	}
	fmt.Fprintf(p.errOut, "vmctl: %s\n", oneLine(err.Error()+p.hint(err)))
	if !p.started { // found by cobra, which has no type for it
		return statusUsage
	}
	return status(err)
}

// nobodyReads reports whether the reader of our output left, as head does.
func nobodyReads(err error) bool {
	var file *fs.PathError // of a file; an error of a socket has another type
	return errors.As(err, &file) && errors.Is(file.Err, syscall.EPIPE)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "vmctl",
		Short:         "Create, power and watch virtual machines",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if p.format != formatTable && p.format != formatJSON {
				return fmt.Errorf("--output %s: must be table or json", p.format)
			}
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.socket, "socket", "", "unix socket of vmctld (default $VMCTL_SOCKET or "+client.DefaultSocket+")")
	flags.StringVar(&p.server, "server", "", "https://host:port of vmhttp instead (default $VMCTL_SERVER)")
	flags.StringVarP(&p.format, "output", "o", formatTable, "table or json")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return fmt.Errorf("%s: %w", place(cmd, nil), err) })
	p.group(root, p.vmCommand(), p.consoleCommand(), p.eventsCommand(), p.tasksCommand(),
		p.hostCommand(), p.loginCommand(), p.logoutCommand(), p.versionCommand())
	if err := root.RegisterFlagCompletionFunc("output", fixed(formatTable, formatJSON)); err != nil {
		panic(err) // the flag is defined above
	}
	return root
}

// group adds children to a command that does nothing by itself. Without a
// verb it shows its help; a verb that it does not have is an error.
func (p *program) group(parent *cobra.Command, children ...*cobra.Command) *cobra.Command {
	parent.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%s: no command %q; see %s --help", place(cmd, nil), args[0], cmd.CommandPath())
		}
		return nil
	}
	parent.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	parent.AddCommand(children...)
	return parent
}

// action is what a command does with a client; cmd is there for its flags.
type action func(ctx context.Context, c *client.Client, args []string) error

// with makes a command's RunE of an action: it connects, and puts the words
// of the command before an error.
func (p *program) with(do action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p.started = true
		c, err := p.connect()
		if err == nil {
			defer c.Close()
			err = refused(c, do(cmd.Context(), c, args))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", place(cmd, args), err)
		}
		return nil
	}
}

// place names a command in an error, as in "vm on web".
func place(cmd *cobra.Command, args []string) string {
	words := strings.Fields(cmd.CommandPath())[1:]
	if len(args) > 0 {
		words = append(words, args[0])
	}
	if len(words) == 0 {
		return "command line"
	}
	return strings.Join(words, " ")
}

// connect returns a client of what the flags, or else the environment, name.
func (p *program) connect() (*client.Client, error) {
	socket, server, err := p.target()
	if err != nil {
		return nil, err
	}
	cfg := client.Config{UserAgent: "vmctl/" + version()}
	if server == "" {
		cfg.Socket = socket
		return client.New(cfg)
	}
	kept, err := p.logins().load(server)
	switch {
	case errors.Is(err, os.ErrNotExist) || err == nil && kept.Session == "":
		return nil, notLoggedIn{server}
	case err != nil:
		return nil, err
	}
	cfg.Server, cfg.Session, cfg.Fingerprint = server, kept.Session, kept.Fingerprint
	return client.New(cfg)
}

// target decides between socket and server: flags before the environment.
func (p *program) target() (socket, server string, err error) {
	if p.socket != "" && p.server != "" {
		return "", "", usageError{errors.New("--socket and --server exclude each other")}
	}
	socket, server = p.socket, p.server
	if socket == "" && server == "" {
		if socket = p.getenv("VMCTL_SOCKET"); socket == "" {
			server = p.getenv("VMCTL_SERVER")
		}
	}
	if server != "" {
		if server, err = client.ParseServer(server); err != nil {
			return "", "", usageError{err}
		}
		return "", server, nil
	}
	if socket == "" {
		socket = client.DefaultSocket
	}
	return socket, "", nil
}

// words checks the number of arguments; the error shows how the command is
// written.
func words(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("%s: usage: %s", place(cmd, nil), cmd.UseLine())
		}
		return nil
	}
}
