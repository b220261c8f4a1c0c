package iot_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/provisioning"
)

// TestAnUnknownRegistrationTaskIsRefusedAsTheModelSays ensures that each operation refuses a task
// that isn't there with an exception that AWS's model has for it.
func TestAnUnknownRegistrationTaskIsRefusedAsTheModelSays(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t, func(rooms *iot.Rooms) {
		bulk, err := provisioning.NewBulk(t.Context(), rooms.Claims, nil, provisioning.BulkOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bulk.Close)
		rooms.Bulk = bulk
	})
	client, id := server.Client(server.NewTenant()), aws.String("8ed2dd3a-6c3c-4ae9-8b8c-2bb6a6f9b8a1")
	_, err := client.DescribeThingRegistrationTask(t.Context(), &sdk.DescribeThingRegistrationTaskInput{TaskId: id})
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, *id)
	_, err = client.StopThingRegistrationTask(t.Context(), &sdk.StopThingRegistrationTaskInput{TaskId: id})
	iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, *id)
	_, err = client.ListThingRegistrationTaskReports(t.Context(), &sdk.ListThingRegistrationTaskReportsInput{TaskId: id, ReportType: types.ReportTypeErrors})
	iottest.WantRefusal(t, err, "InvalidRequestException", 400, *id)
}
