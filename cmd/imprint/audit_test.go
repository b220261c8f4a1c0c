package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/audits"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// interrupted is a way to the server on which its first answer comes just after somebody
// interrupted the command.
type interrupted struct{ interrupt context.CancelFunc }

func (i interrupted) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(request.WithContext(context.WithoutCancel(request.Context())))
	i.interrupt()
	if request.Context().Err() != nil && err == nil {
		_ = response.Body.Close()
		return nil, request.Context().Err()
	}
	return response, err
}

// TestAnAuditThatIsInterruptedWhileItBeginsIsCanceled ensures that no audit runs on which
// the command that began it never heard of.
func TestAnAuditThatIsInterruptedWhileItBeginsIsCanceled(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	auditor, err := audit.New(t.Context(), store, time.Now, audit.Options{Flush: func(ctx context.Context) error {
		<-ctx.Done() // an audit takes its time
		return ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auditor.Close)
	service := iot.NewService(iot.Rooms{Store: store, Clock: time.Now, Audit: auditor})
	server := apitest.Serve(t, nil, awsapi.Config{}, slices.Concat(iot.Operations(), audits.Operations()), slices.Concat(service.Routes(), audits.Starter{Auditor: auditor}.Routes()))
	tenant := imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	ctx, interrupt := context.WithCancel(t.Context())
	c := server.Client(t, apitest.KeyOf(tenant.Account, "anna"), tenant.Region, &http.Client{Transport: interrupted{interrupt}})
	_, err = runAudit(ctx, c, nil)
	var tasks []imprint.AuditTask
	failed := store.View(t.Context(), func(tx imprint.ReadTx) error {
		var err error
		tasks, _, err = tx.AuditTasks(tenant, imprint.AuditTaskFilter{}, imprint.Page{Limit: 10})
		return err
	})
	if failed != nil {
		t.Fatal(failed)
	}
	if len(tasks) != 1 || tasks[0].Status != imprint.AuditCanceled || err == nil || !strings.Contains(err.Error(), tasks[0].ID+" was canceled") {
		t.Errorf("got %+v and %v, want one audit that is canceled, and told of", tasks, err)
	}
}
